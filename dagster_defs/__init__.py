"""Tidemill in Dagster: what was asked and what was answered, as versioned assets with lineage."""

"""Definitions, found by Dagster's folder loader."""

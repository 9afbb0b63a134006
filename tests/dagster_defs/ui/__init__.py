"""A real Chromium for Dagster's UI, installed without root."""

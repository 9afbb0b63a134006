"""How Tidemill's feed becomes Dagster events. Nothing here defines anything in Dagster."""

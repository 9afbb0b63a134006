"""The partition set that all per-dataset assets share."""

import dagster as dg

DATASETS = "datasets"

datasets = dg.DynamicPartitionsDefinition(name=DATASETS)

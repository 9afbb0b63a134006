"""What a test reads back from Dagster's storage."""

from collections import Counter

import dagster as dg

from dagster_defs.lib.versions import JOB_ID_TAG, OUTPUTS, PROMPTS

MANY = 10_000


def materializations(instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
    records = instance.fetch_materializations(OUTPUTS, MANY, ascending=True).records
    return [found for record in records if (found := record.event_log_entry.asset_materialization)]


def observations(instance: dg.DagsterInstance, key: dg.AssetKey = PROMPTS) -> list[dg.AssetObservation]:
    records = instance.fetch_observations(key, MANY, ascending=True).records
    return [found for record in records if (found := record.event_log_entry.asset_observation)]


def job_ids(events: list[dg.AssetMaterialization] | list[dg.AssetObservation]) -> Counter[str]:
    """How often each job was reported."""
    return Counter((event.tags or {})[JOB_ID_TAG] for event in events)

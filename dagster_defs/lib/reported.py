"""What Dagster has stored already of what the feed says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import dagster as dg

from dagster_defs.lib import versions

_PAGE = 50

Fetch = Callable[[dg.AssetRecordsFilter, int, str | None], dg.EventRecordsResult]


@dataclass(frozen=True)
class Reported:
    """Events stored after some storage id.

    Attributes:
        inputs: ids of the jobs whose input was observed.
        outputs: ids of the jobs whose end was reported.
        storage_id: the largest storage id seen.
    """

    inputs: frozenset[str]
    outputs: frozenset[str]
    storage_id: int


def read_reported(instance: dg.DagsterInstance, after_storage_id: int) -> Reported:
    """Read what was stored after `after_storage_id`: the last tick's events, and those of a tick that crashed."""
    inputs = list(_stored(_observations(instance), versions.PROMPTS, after_storage_id))
    outputs = [
        *_stored(_observations(instance), versions.OUTPUTS, after_storage_id),
        *_stored(_materializations(instance), versions.OUTPUTS, after_storage_id),
    ]
    last = max((record.storage_id for record in (*inputs, *outputs)), default=after_storage_id)
    return Reported(_job_ids(inputs), _job_ids(outputs), last)


def find_input(instance: dg.DagsterInstance, partition: str, data_version: str) -> int | None:
    """Storage id of the newest observation of this input in this partition, or None."""
    selection = dg.AssetRecordsFilter(versions.PROMPTS, asset_partitions=[partition])
    for record in _pages(_observations(instance, ascending=False), selection):
        if versions.data_version(_tags(record)) == data_version:
            return record.storage_id
    return None


def _stored(fetch: Fetch, key: dg.AssetKey, after_storage_id: int) -> Iterator[dg.EventLogRecord]:
    return _pages(fetch, dg.AssetRecordsFilter(key, after_storage_id=after_storage_id))


def _pages(fetch: Fetch, selection: dg.AssetRecordsFilter) -> Iterator[dg.EventLogRecord]:
    cursor: str | None = None
    while True:
        page = fetch(selection, _PAGE, cursor)
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def _observations(instance: dg.DagsterInstance, ascending: bool = True) -> Fetch:
    return lambda selection, limit, cursor: instance.fetch_observations(selection, limit, cursor, ascending)


def _materializations(instance: dg.DagsterInstance) -> Fetch:
    return lambda selection, limit, cursor: instance.fetch_materializations(selection, limit, cursor, True)


def _job_ids(records: list[dg.EventLogRecord]) -> frozenset[str]:
    found = (_tags(record).get(versions.JOB_ID_TAG) for record in records)
    return frozenset(job_id for job_id in found if job_id)


def _tags(record: dg.EventLogRecord) -> dict[str, str]:
    event = record.event_log_entry.asset_materialization or record.event_log_entry.asset_observation
    return dict(event.tags or {}) if event else {}

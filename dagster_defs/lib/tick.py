"""What one tick of the completions sensor does: pure, so that every crash can be replayed in a test.

Dagster delivers a tick's outcome at least once: events one by one, then the partition requests, then the cursor. A tick
that crashes in between runs again with the old cursor, so it must find by itself what is stored already. Two rules make
that work: events of entries above the cursor's sequence always lie above its storage id, and partitions are requested
for every entry, stored or not.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import dagster as dg

from dagster_defs.lib import events, versions
from dagster_defs.lib.cursor import FeedCursor
from dagster_defs.lib.partitions import partition_key
from dagster_defs.lib.reported import Reported
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2

Event = dg.AssetMaterialization | dg.AssetObservation
FindInput = Callable[[str, str], int | None]


@dataclass
class Tick:
    """The outcome of a tick, filled entry by entry.

    Attributes:
        reported: what Dagster had when the tick began.
        find_input: storage id of the observation of a partition's input version, or None.
        trace_template: page of a trace, see `TidemillGateway`.
        sequence: every entry up to here is in Dagster or in `events`.
        events: what to store, in this order.
        partitions: keys to register, in order of appearance.
        deferred: partitions with an entry that must wait for the next tick; later entries of one wait as well, so
            that the newest version of a dataset is stored last.
        jobs: the jobs behind `events`.
    """

    reported: Reported
    find_input: FindInput
    trace_template: str
    sequence: int
    events: list[Event] = field(default_factory=list[Event])
    partitions: dict[str, None] = field(default_factory=dict[str, None])
    deferred: set[str] = field(default_factory=set[str])
    jobs: list[job_pb2.Job] = field(default_factory=list[job_pb2.Job])
    _observing: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def take(self, entry: job_service_pb2.Completion) -> None:
        """Decide on one entry of the feed."""
        if entry.job.replay_of:
            # A comparison with an earlier version, and none itself.
            pass
        elif entry.dataset:
            self.partitions[partition_key(entry.dataset)] = None
            self._report(entry)
        elif entry.job.state == job_pb2.JOB_STATE_SUCCEEDED:
            raise TidemillError(Reason.DATA_CORRUPT, f"{entry.job.name} succeeded without naming its dataset")
        # Else the job ended before it was sealed and there is no dataset to speak of.
        if not self.deferred:
            self.sequence = entry.sequence

    def _report(self, entry: job_service_pb2.Completion) -> None:
        job_id = versions.job_id(entry.job)
        if entry.kind == job_service_pb2.COMPLETION_KIND_ACCEPTED:
            if job_id not in self.reported.inputs:
                self._observe_input(entry)
        elif job_id not in self.reported.outputs:
            self._finish(entry)

    def _finish(self, entry: job_service_pb2.Completion) -> None:
        partition = partition_key(entry.dataset)
        if entry.job.state != job_pb2.JOB_STATE_SUCCEEDED:
            return self._add(events.partial_observation(entry, self.trace_template), entry)
        pointer = self.find_input(partition, entry.job.input_data_version)
        if partition in self.deferred or pointer is None:
            return self._defer(entry, partition, missing=pointer is None)
        return self._add(events.output_materialization(entry, pointer, self.trace_template), entry)

    def _defer(self, entry: job_service_pb2.Completion, partition: str, missing: bool) -> None:
        """Wait until the input's observation has a storage id; it gets one when this tick's events are stored."""
        self.deferred.add(partition)
        if missing and (partition, entry.job.input_data_version) not in self._observing:
            self._observe_input(entry)

    def _observe_input(self, entry: job_service_pb2.Completion) -> None:
        self._observing.add((partition_key(entry.dataset), entry.job.input_data_version))
        self._add(events.input_observation(entry, self.trace_template), entry)

    def _add(self, event: Event, entry: job_service_pb2.Completion) -> None:
        self.events.append(event)
        self.jobs.append(entry.job)


def run_tick(
    cursor: FeedCursor,
    feed: job_service_pb2.ListCompletionsResponse,
    reported: Reported,
    find_input: FindInput,
    trace_template: str = "",
) -> tuple[Tick, FeedCursor]:
    """Turn a slice of the feed into events and the cursor that is right once they are stored."""
    cursor.check_ledger(feed.ledger_uid)
    tick = Tick(reported, find_input, trace_template, cursor.sequence)
    for entry in feed.completions:
        tick.take(entry)
    if tick.deferred:
        # Entries above `sequence` may be stored by now; the next tick must look for them where this one did.
        return tick, FeedCursor(tick.sequence, cursor.storage_id, feed.ledger_uid)
    return tick, FeedCursor(feed.next_sequence, reported.storage_id, feed.ledger_uid)

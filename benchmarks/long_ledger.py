"""A ledger as a long life leaves it: many archived jobs, some in memory, many open, and a tail behind the snapshot.

It is made from the scheduler's own parts, without RPCs: jobs that ended are copies of one that went through all its
events, under other names of the same length.
"""

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cycle_messages
from services.scheduler import archived, snapshot
from services.scheduler.core import endings, jobs, leasing, packing, parts, views, writers
from services.scheduler.core.limits import Limits
from services.scheduler.core.policy import Offer
from services.scheduler.core.records import Cleanup
from services.scheduler.core.state import State
from services.scheduler.engine import Events, Turn
from services.scheduler.framing import frame
from services.scheduler.ledger import SqliteLedger
from services.scheduler.ledger.keeping import ArchiveRow
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_service_pb2, model_service_pb2

MODEL = "model"
TENANTS = 10
CHUNK_ROWS = 64
ENDED_ROWS = 256
OPEN_ROWS = 1024
BATCH = 500

_LIMITS = Limits(CHUNK_ROWS, 1 << 20, 1 << 20, 1 << 20, 1 << 20)
_OFFER = Offer("worker", {MODEL: model_service_pb2.MODEL_STATE_LOADED})


@dataclass(frozen=True)
class Size:
    """Jobs that ended, jobs that ended and are in memory, open jobs, events behind the snapshot."""

    ended: int = 100_000
    fresh: int = 1000
    open: int = 10_000
    tail: int = 25_000


@dataclass(frozen=True)
class Built:
    """What was measured on the way: seconds."""

    capture_s: float
    longest_slice_s: float
    snapshot_bytes: int


class Life:
    """A state and what happens to it."""

    def __init__(self) -> None:
        self.state = State()
        self.events: Events = []
        self._offer = _OFFER

    def record(self, events: Events) -> Events:
        """Number, time and apply; kept for an append."""
        Turn(self.state, 1, time.time_ns()).record(events)
        self.events.extend(events)
        return events

    def open_job(self, tenant: str, number: int, rows: int) -> str:
        """A sealed job."""
        spec = cycle_messages.spec(tenant, number, MODEL)
        self.record(jobs.create_job(self.state, spec, time.time_ns()))
        self.record(writers.open_writer(self.state, spec.name))
        self.record(writers.commit_segment(self.state, cycle_messages.segment(spec.name, 1, rows)))
        self.record(jobs.seal_job(self.state, cycle_messages.seal(spec.name, rows)))
        return spec.name

    def work(self) -> bool:
        """Lease the next piece of work and do it; returns whether there was any."""
        events = self.record(leasing.lease_next(self.state, self._offer, _LIMITS, time.time_ns()))
        if not events:
            return False
        lease = self.state.leases[self.state.fence_of(events[0])]
        message = views.lease_message(self.state, lease, 15.0)
        if message.kind == pb.LEASE_KIND_CHUNK:
            self.record(parts.commit_part(self.state, cycle_messages.part(message)))
        else:
            self.record(endings.finish_job(self.state, cycle_messages.finish(message)))
        return True

    def end_job(self, tenant: str, number: int) -> str:
        """A job that ran to its end; nothing else may be open."""
        name = self.open_job(tenant, number, ENDED_ROWS)
        while not self.state.jobs[name].terminal:
            self.work()
        return name


def build(path: Path, size: Size) -> Built:
    """Make the ledger at `path`."""
    ledger = SqliteLedger(path)
    epoch = ledger.open("benchmark").epoch
    life = Life()
    for number in range(size.fresh):
        life.end_job(f"tenant-{number % TENANTS}", number)
    template = life.end_job("tenant-0", size.fresh)
    rows = list(_archive(life, template, size))
    for first in range(0, len(rows), BATCH):
        ledger.archive_jobs(epoch, rows[first : first + BATCH])
    for number in range(size.open):
        life.open_job(f"tenant-{number % TENANTS}", size.fresh + size.ended + number + 1, OPEN_ROWS)
    life.state.archivals = size.ended
    built, blob = _snapshot(life.state)
    ledger.save_snapshot(epoch, life.state.sequence, blob)
    _append_tail(ledger, epoch, life, size.tail)
    ledger.close()
    _index(path, [row.name for row in rows])
    return built


def _archive(life: Life, template: str, size: Size) -> Iterator[ArchiveRow]:
    """Copies of the template under other names; memory keeps what is left to do about their files."""
    taken = archived.take(life.state, template)
    text = json.dumps(packing.packed(archived.ArchivedJob, taken), ensure_ascii=False)
    header = {"schema": packing.schema_of(archived.ArchivedJob)}
    cleanup = Cleanup(taken.job.end_ns, swept=True)
    tenant, _, own = template.rpartition("/jobs/")
    for number in range(size.fresh + 1, size.fresh + 1 + size.ended):
        name = cycle_messages.job_name(tenant.removeprefix("tenants/"), number)
        body = zlib.compress(text.replace(own, name.rpartition("/")[2]).encode(), 1)
        life.state.put_cleanup(name, cleanup)
        yield ArchiveRow(name, taken.job.tenant, taken.job.state, "", frame(archived.MAGIC, header, body))


def _snapshot(state: State) -> tuple[Built, bytes]:
    started = time.perf_counter()
    writer = snapshot.Writer(snapshot.capture(state))
    capture = time.perf_counter() - started
    slices: list[float] = []
    more = True
    while more:
        started = time.perf_counter()
        more = writer.step()
        slices.append(time.perf_counter() - started)
    blob = writer.blob()
    return Built(round(capture, 4), round(max(slices), 4), len(blob)), blob


def _append_tail(ledger: SqliteLedger, epoch: int, life: Life, count: int) -> None:
    before = life.state.sequence
    life.events.clear()
    while len(life.events) < count and life.work():
        pass
    for event in life.events:
        event.epoch = epoch
    ledger.append(epoch, before, life.events)


def _index(path: Path, names: list[str]) -> None:
    """The completion index of jobs whose events are gone."""
    kinds = (job_service_pb2.COMPLETION_KIND_ACCEPTED, job_service_pb2.COMPLETION_KIND_FINISHED)
    rows = [
        (name.split("/")[1], -2 * len(names) + 2 * place + which, kind, name)
        for place, name in enumerate(names)
        for which, kind in enumerate(kinds)
    ]
    with sqlite3.connect(path) as db:
        db.executemany("INSERT OR IGNORE INTO completions VALUES (?, ?, ?, ?)", rows)
    db.close()

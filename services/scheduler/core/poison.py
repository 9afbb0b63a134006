"""Rows that kill engines: found by halving, and given up one at a time.

A chunk that was in an engine when it died is a suspect: from then on it runs alone. If the engine dies again, the chunk
is halved, and both halves run alone, until a single row is left. A row that kills an engine alone twice is condemned:
it ends as an error row. Once a chunk has used up its attempts, a worker that vanishes with it counts as a death, too.

So a poison row costs at most `max_attempts` + log2(rows of a chunk) + 2 deaths, and a job that has more of them than
`max_condemned_rows` fails.
"""

from dataclasses import replace

from services.scheduler.core.endings import end_job
from services.scheduler.core.limits import Limits
from services.scheduler.core.records import Chunk, Job, Lease, Requeue
from tidemill import rowset
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2

Events = list[ledger_pb2.LedgerEvent]

TOO_MANY_ROWS_CONDEMNED = "TOO_MANY_ROWS_CONDEMNED"

DEATHS_ALONE = 2
"""So often a row has to kill an engine alone: once may be chance."""

_DIED = ledger_pb2.REQUEUE_REASON_ENGINE_DIED


def judged(requeue: Requeue, chunk: Chunk, limits: Limits) -> Requeue:
    """What the end of a lease means for its chunk: a death, or an attempt."""
    if chunk.condemned:
        # Nothing of it runs, so it killed nobody.
        return replace(requeue, reason=ledger_pb2.REQUEUE_REASON_FAILED) if requeue.reason == _DIED else requeue
    vanished = requeue.reason == ledger_pb2.REQUEUE_REASON_EXPIRED
    if vanished and chunk.failures + 1 >= limits.max_attempts:
        words = f"{chunk.failures + 1} workers vanished with it: it may have killed them"
        return replace(requeue, reason=_DIED, message=words)
    return requeue


def after_death(job: Job, chunk: Chunk, lease: Lease, limits: Limits) -> Events:
    """What follows when an engine died with the chunk inside."""
    if not lease.alone:
        return []
    if chunk.missing > 1:
        split = ledger_pb2.ChunkSplit(job=job.name, chunk_start=chunk.start, first_rows=first_half(chunk))
        return [ledger_pb2.LedgerEvent(chunk_split=split)]
    if chunk.deaths_alone + 1 < DEATHS_ALONE:
        return []
    return _condemn(job, chunk, limits)


def first_half(chunk: Chunk) -> int:
    """Rows of the first half of a chunk that misses several results: both halves miss as many, or one more."""
    missing = list(rowset.indices(rowset.full(chunk.rows) & ~chunk.done))
    return missing[len(missing) // 2]


def _condemn(job: Job, chunk: Chunk, limits: Limits) -> Events:
    (offset,) = rowset.indices(rowset.full(chunk.rows) & ~chunk.done)
    row = chunk.start + offset
    condemned = ledger_pb2.RowCondemned(job=job.name, chunk_start=chunk.start, row_index=row)
    events = [ledger_pb2.LedgerEvent(row_condemned=condemned)]
    if job.condemned_rows < limits.max_condemned_rows:
        return events
    words = (
        f"{job.condemned_rows + 1} rows, the last one {row}, killed an engine alone twice each; the service gives up "
        f"{limits.max_condemned_rows} rows of a job: look at these rows, or at the model's engine"
    )
    return [*events, *end_job(job, job_pb2.JOB_STATE_FAILED, TOO_MANY_ROWS_CONDEMNED, words)]

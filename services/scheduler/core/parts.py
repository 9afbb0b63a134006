"""`CommitPart`: result rows become visible exactly once (I3)."""

from dataclasses import replace

from services.scheduler.core.breaker import trip
from services.scheduler.core.checks import find_job, require, require_key
from services.scheduler.core.codec import part_message, part_of
from services.scheduler.core.endings import end_stopped, stale_fence, succeeded
from services.scheduler.core.limits import Limits
from services.scheduler.core.records import Chunk, Job, Lease, LeaseKind, Part, Tally
from services.scheduler.core.state import State
from tidemill import rowset
from tidemill.digests import SHA256_BYTES
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2, scheduler_service_pb2
from tidemill.v1 import job_pb2

Events = list[ledger_pb2.LedgerEvent]

MAX_BUSY_SECONDS = 1e7

_GIVEN_UP_AS = {
    job_pb2.JOB_STATE_CANCELLED: "cancelled",
    job_pb2.JOB_STATE_EXPIRED: "expired",
    job_pb2.JOB_STATE_FAILED: "failed",
}


def commit_part(state: State, request: scheduler_service_pb2.CommitPartRequest, limits: Limits | None = None) -> Events:
    """Make the part's rows visible; no event when this part was committed before, whatever became of its lease.

    The commit of a job's last row also ends the job.

    Raises:
        TidemillError: JOB_NOT_FOUND; PART_CONFLICT when the part number or a row was used with other content;
            STALE_FENCE when the lease is over; PART_INVALID when the part contradicts itself or its chunk.
    """
    job = find_job(state, request.job)
    part = part_of(request.part)
    if _committed_before(state, job, part):
        return []
    lease = state.leases.get(part.fence)
    if lease is None or lease.job != job.name:
        raise stale_fence(job.name, part.fence)
    chunk = _chunk_under(state, job, lease, part)
    _check_part(job, lease, chunk, part)
    _check_weights(job, lease, part, request.model_digest)
    require_key(part.key, job.name, "output", "part.key")
    require(0 <= request.busy_seconds < MAX_BUSY_SECONDS, "busy_seconds", f"must be 0 to {MAX_BUSY_SECONDS:.0f}")
    placed = replace(part, first_result_offset=job.results)
    committed = ledger_pb2.PartCommitted(
        job=job.name,
        part=part_message(placed),
        model_digest=request.model_digest,
        engine_build=request.engine_build,
        busy_seconds=request.busy_seconds,
    )
    events = [ledger_pb2.LedgerEvent(part_committed=committed)]
    return [*events, *_what_follows(state, lease, part, limits or Limits())]


def _check_weights(job: Job, lease: Lease, part: Part, digest: str) -> None:
    """One job, one model: rows that other weights answered must not stand beside those of the pinned ones."""
    if lease.kind is LeaseKind.CHUNK and job.pinned_digest and digest not in ("", job.pinned_digest):
        raise _invalid(job, part, f"weights {digest[:12]} answered it, the job is pinned to {job.pinned_digest[:12]}")


def _what_follows(state: State, lease: Lease, part: Part, limits: Limits) -> Events:
    """The end of the job, where these rows were its last or the last lease of a stopping job is done; or its pause."""
    if lease.kind is not LeaseKind.CHUNK:
        return []
    job = state.jobs[lease.job]
    if job.stopping is not None:
        chunk = state.chunks[job.name][lease.chunk_start]
        return end_stopped(state, job) if part.row_count == chunk.missing else []
    return succeeded(job) if job.results + part.row_count == job.end else trip(job, part.tally, limits)


def _committed_before(state: State, job: Job, part: Part) -> bool:
    known = state.part_of.get((part.fence, part.part_number))
    if known is None:
        return False
    job_name, stored = known
    if job_name == job.name and (stored.chunk_start, stored.sha256) == (part.chunk_start, part.sha256):
        return True
    raise _conflict(job, part, "its number was committed with other content under this fence")


def _conflict(job: Job, part: Part, why: str) -> TidemillError:
    return TidemillError(
        Reason.PART_CONFLICT,
        f"part {part.part_number} of chunk {part.chunk_start} of job {job.name} is refused: {why}",
        metadata={"job": job.name, "chunk_start": part.chunk_start, "fence": part.fence, "part": part.part_number},
    )


def _chunk_under(state: State, job: Job, lease: Lease, part: Part) -> Chunk:
    """The chunk that the part answers: that of its lease, or any remainder under a closing one."""
    if lease.kind is LeaseKind.CHUNK and lease.chunk_start != part.chunk_start:
        raise _invalid(job, part, f"fence {lease.fence} stands for chunk {lease.chunk_start}")
    chunk = state.chunks.get(job.name, {}).get(part.chunk_start)
    if chunk is None:
        raise _invalid(job, part, "no row of such a chunk misses a result")
    if chunk.rows != part.chunk_rows:
        raise _invalid(job, part, f"the chunk has {chunk.rows} rows, not {part.chunk_rows}")
    return chunk


def _invalid(job: Job, part: Part, why: str) -> TidemillError:
    return TidemillError(
        Reason.PART_INVALID,
        f"part {part.part_number} of chunk {part.chunk_start} of job {job.name} is malformed: {why}",
        metadata={"job": job.name, "chunk_start": part.chunk_start, "fence": part.fence, "part": part.part_number},
    )


def _check_part(job: Job, lease: Lease, chunk: Chunk, part: Part) -> None:
    marked = part.rows.bit_count()
    if not rowset.fits(part.rows, chunk.rows):
        raise _invalid(job, part, f"its bitmap names rows beyond the chunk's {chunk.rows}")
    if not marked or marked != part.row_count or marked != part.tally.rows:
        raise _invalid(
            job, part, f"bitmap, row_count and tally name {marked}, {part.row_count} and {part.tally.rows} rows"
        )
    if len(part.sha256) != SHA256_BYTES or part.part_number < 0:
        raise _invalid(job, part, f"sha256 must have {SHA256_BYTES} bytes and part_number must not be negative")
    if len(part.engine_record) not in (0, SHA256_BYTES):
        raise _invalid(job, part, f"engine_record must have {SHA256_BYTES} bytes or none")
    _check_tally(job, lease, part)
    if part.rows & chunk.done:
        twice = (part.rows & chunk.done).bit_count()
        raise _conflict(job, part, f"{twice} of its rows have a result already")


def _check_tally(job: Job, lease: Lease, part: Part) -> None:
    tally = part.tally
    fields = (tally.succeeded, tally.failed, tally.cancelled, tally.expired)
    if min(*fields, tally.prompt_tokens, tally.output_tokens, tally.cached_tokens) < 0:
        raise _invalid(job, part, "its tally has negative figures")
    if lease.kind is LeaseKind.CHUNK:
        if tally.cancelled or tally.expired:
            raise _invalid(job, part, "only a closing task gives rows up")
        return
    expected = _GIVEN_UP_AS.get(job.expect_ending().outcome)
    if expected is None or tally != Tally(**{expected: part.row_count}):
        raise _invalid(job, part, f"under this closing task every row is given up as {expected}")

"""Commands of gateways that append rows: own the end, move the end."""

from services.scheduler.core.checks import find_job, find_receiving, not_receiving, require, require_key, require_sha256
from services.scheduler.core.records import Job, Segment
from services.scheduler.core.state import State
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2, records_pb2, scheduler_service_pb2
from tidemill.merkle import Frontier

Events = list[ledger_pb2.LedgerEvent]


def open_writer(state: State, name: str) -> Events:
    """Make the caller the only writer.

    Raises:
        TidemillError: JOB_NOT_FOUND or JOB_NOT_RECEIVING.
    """
    job = find_receiving(state, name)
    # Behind a restore also above every epoch that the lost tail gave out, and that a writer may still hold.
    epoch = max(job.writer_epoch, state.fence_base) + 1
    opened = ledger_pb2.WriterOpened(job=job.name, writer_epoch=epoch)
    return [ledger_pb2.LedgerEvent(writer_opened=opened)]


def commit_segment(state: State, request: scheduler_service_pb2.CommitSegmentRequest) -> Events:
    """Move the durable end; no event when this segment is the last one already.

    Raises:
        TidemillError: JOB_NOT_FOUND, JOB_NOT_RECEIVING, WRITER_SUPERSEDED, OFFSET_GAP or INVALID_ARGUMENT.
    """
    job = find_job(state, request.job)
    if _is_last(state, job, request):
        return []
    if not job.receiving:
        raise not_receiving(job)
    _check_writer(job, request.writer_epoch)
    _check_segment(job, request)
    committed = ledger_pb2.SegmentCommitted(
        job=job.name,
        writer_epoch=request.writer_epoch,
        segment=request.segment,
        merkle_frontier=request.merkle_frontier,
    )
    return [ledger_pb2.LedgerEvent(segment_committed=committed)]


def _is_last(state: State, job: Job, request: scheduler_service_pb2.CommitSegmentRequest) -> bool:
    segments = state.segments.get(job.name)
    if not segments:
        return False
    return segments[-1] == _segment(request.segment, request.writer_epoch)


def _segment(ref: records_pb2.SegmentRef, writer_epoch: int) -> Segment:
    return Segment(ref.key, ref.start, ref.count, ref.sha256, ref.size_bytes, writer_epoch)


def _check_writer(job: Job, writer_epoch: int) -> None:
    if writer_epoch == job.writer_epoch and writer_epoch > 0:
        return
    raise TidemillError(
        Reason.WRITER_SUPERSEDED,
        f"writer epoch {writer_epoch} of job {job.name} is not the current one, {job.writer_epoch}: another appender "
        "took over, or none was opened",
        metadata={"job": job.name, "writer_epoch": writer_epoch, "current_writer_epoch": job.writer_epoch},
    )


def _check_segment(job: Job, request: scheduler_service_pb2.CommitSegmentRequest) -> None:
    ref = request.segment
    if ref.start != job.end:
        raise TidemillError(
            Reason.OFFSET_GAP,
            f"segment starts at row {ref.start} where job {job.name} ends at {job.end}",
            metadata={"job": job.name, "start": ref.start, "next_offset": job.end},
        )
    require(ref.count > 0, "segment.count", "must be at least 1")
    require_key(ref.key, job.name, "input", "segment.key")
    require_sha256(ref.sha256, "segment.sha256")
    require(ref.size_bytes > 0, "segment.size_bytes", "must be at least 1")
    try:
        Frontier.restore(ref.start + ref.count, tuple(request.merkle_frontier))
    except ValueError as error:
        require(False, "merkle_frontier", str(error))

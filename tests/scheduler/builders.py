"""Small messages for tests: everything has a default, so that a test names only what it is about."""

import hashlib
import time
from typing import TypeAlias

from services.scheduler.core.policy import Offer
from tidemill import rowset
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.merkle import Frontier
from tidemill.names import parse_job
from tidemill.v1 import job_pb2, model_service_pb2

ModelState: TypeAlias = "model_service_pb2.ModelState.ValueType"

LOADED = model_service_pb2.MODEL_STATE_LOADED
SHA = b"\x07" * 32
DEADLINE = int(time.time()) + 5 * 86_400
"""In the range that a scheduler on the real clock takes."""
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(number: int) -> str:
    """A job id that sorts by `number`."""
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def job_name(number: int = 1, tenant: str = "acme") -> str:
    """A job's name."""
    return f"tenants/{tenant}/jobs/{ulid(number)}"


def spec(number: int = 1, *, tenant: str = "acme", model: str = "tiny", deadline: int = DEADLINE, request_id: str = ""):
    """A valid job specification; `deadline` in seconds since the epoch."""
    message = records_pb2.JobSpec(
        name=job_name(number, tenant),
        tenant=tenant,
        model=model,
        execution_mode=job_pb2.EXECUTION_MODE_SHARED,
        request_id=request_id,
        request_digest=hashlib.sha256(model.encode()).digest() if request_id else b"",
    )
    message.complete_by_time.seconds = deadline
    return message


def frontier(rows: int) -> tuple[bytes, ...]:
    """The Merkle frontier over `rows` made-up leaves."""
    return Frontier().extend(row.to_bytes(4, "big") for row in range(rows)).peaks


def segment(job: str, start: int, count: int, epoch: int = 1) -> pb.CommitSegmentRequest:
    """A commit of rows `start` to `start + count`."""
    ref = records_pb2.SegmentRef(
        key=f"{parse_job(job).prefix}/input/{start:012d}-{epoch}.parquet",
        start=start,
        count=count,
        sha256=SHA,
        size_bytes=100,
    )
    return pb.CommitSegmentRequest(job=job, writer_epoch=epoch, segment=ref, merkle_frontier=frontier(start + count))


def seal(job: str, rows: int, dataset: str = "answers") -> pb.SealJobRequest:
    """A seal of `rows` rows."""
    return pb.SealJobRequest(
        job=job,
        row_count=rows,
        input_data_version=SHA,
        input_manifest_key=f"{parse_job(job).prefix}/input/manifest.json",
        dataset=dataset,
    )


def part(
    lease: pb.Lease,
    rows: set[int],
    *,
    number: int = 0,
    failed: int = 0,
    chunk: tuple[int, int] | None = None,
    outcome: str = "succeeded",
) -> pb.CommitPartRequest:
    """A part with results of `rows` (offsets in the chunk); `failed` of them failed, the rest ended as `outcome`."""
    start, size = chunk or (lease.chunk_start, lease.chunk_rows)
    tally = records_pb2.RowTally(failed=failed, prompt_tokens=3 * len(rows), output_tokens=2 * len(rows))
    if outcome != "succeeded":
        tally = records_pb2.RowTally()
    setattr(tally, outcome, getattr(tally, outcome) + len(rows) - failed)
    digest = hashlib.sha256(repr((lease.fence, start, sorted(rows))).encode()).digest()
    ref = records_pb2.PartRef(
        key=f"{parse_job(lease.spec.name).prefix}/output/{start:012d}-{lease.fence}-{number:05d}.parquet",
        chunk_start=start,
        chunk_rows=size,
        fence=lease.fence,
        part_number=number,
        row_bitmap=rowset.to_bytes(rowset.of_indices(rows), size),
        sha256=digest,
        tally=tally,
        row_count=len(rows),
    )
    return pb.CommitPartRequest(job=lease.spec.name, part=ref, model_digest="d1", engine_build="vllm test")


def finish(lease: pb.Lease, tally: records_pb2.RowTally) -> pb.FinishJobRequest:
    """The end of a closing task."""
    return pb.FinishJobRequest(
        lease=pb.LeaseKey(job=lease.spec.name, fence=lease.fence),
        output_data_version=SHA,
        output_manifest_key=f"{parse_job(lease.spec.name).prefix}/output/manifest.json",
        tally=tally,
    )


def report(model: str = "tiny", state: ModelState = LOADED) -> records_pb2.ModelReport:
    """What a worker says of a model."""
    return records_pb2.ModelReport(model=model, state=state, max_model_len=512)


def offer(worker_id: str = "w1", **models: ModelState) -> Offer:
    """A worker that asks for work; by default with `tiny` loaded."""
    return Offer(worker_id, models or {"tiny": LOADED})

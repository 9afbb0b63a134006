"""Messages with which the benchmarks of the scheduler play gateway and worker. Nothing is in the object store."""

import hashlib
import time

from tidemill import rowset
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.names import parse_job
from tidemill.v1 import job_pb2, model_service_pb2

JOB_ROWS = 1 << 16
"""Rows of a job: a power of two, so that its Merkle frontier is one hash."""

_PROMPT_TOKENS = 10
_OUTPUT_TOKENS = 16
_WINDOW_SECONDS = 7 * 24 * 3600
_SHA = b"\x07" * 32
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def job_name(tenant: str, number: int) -> str:
    """Name of a tenant's job."""
    ulid = "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
    return f"tenants/{tenant}/jobs/{ulid}"


def spec(tenant: str, number: int, model: str) -> records_pb2.JobSpec:
    """A job that wants its answers within a week, or later."""
    message = records_pb2.JobSpec(
        name=job_name(tenant, number),
        tenant=tenant,
        model=model,
        execution_mode=job_pb2.EXECUTION_MODE_SHARED,
        accept_at_risk=True,
    )
    message.complete_by_time.seconds = int(time.time()) + _WINDOW_SECONDS + number % 10_000
    return message


def segment(job: str, writer_epoch: int, rows: int = JOB_ROWS) -> pb.CommitSegmentRequest:
    """All rows of a job at once; `rows` is a power of two."""
    ref = records_pb2.SegmentRef(
        key=f"{parse_job(job).prefix}/input/000000000000-1.parquet",
        count=rows,
        sha256=_SHA,
        size_bytes=100 * rows,
        text_bytes=40 * rows,
        max_output_tokens=_OUTPUT_TOKENS * rows,
    )
    return pb.CommitSegmentRequest(job=job, writer_epoch=writer_epoch, segment=ref, merkle_frontier=[_SHA])


def seal(job: str, rows: int = JOB_ROWS) -> pb.SealJobRequest:
    """The seal of such a job."""
    manifest = f"{parse_job(job).prefix}/input/manifest.json"
    return pb.SealJobRequest(
        job=job, row_count=rows, input_data_version=_SHA, input_manifest_key=manifest, dataset="answers"
    )


def lease_request(worker_id: str, model: str, wait_seconds: int = 0, chunks: int = 1) -> pb.LeaseChunksRequest:
    """At most `chunks` of them, please."""
    report = records_pb2.ModelReport(model=model, state=model_service_pb2.MODEL_STATE_LOADED, max_model_len=512)
    request = pb.LeaseChunksRequest(worker_id=worker_id, models=[report], max_chunks=chunks)
    request.wait.FromSeconds(wait_seconds)
    return request


def part(lease: pb.Lease) -> pb.CommitPartRequest:
    """Every row of the chunk, answered."""
    rows = lease.chunk_rows
    key = f"{parse_job(lease.spec.name).prefix}/output/{lease.chunk_start:012d}-{lease.fence}-00000.parquet"
    ref = records_pb2.PartRef(
        key=key,
        chunk_start=lease.chunk_start,
        chunk_rows=rows,
        fence=lease.fence,
        row_bitmap=rowset.to_bytes(rowset.full(rows), rows),
        sha256=hashlib.sha256(key.encode()).digest(),
        tally=_tally(rows),
        row_count=rows,
    )
    return pb.CommitPartRequest(
        job=lease.spec.name, part=ref, model_digest="d1", engine_build="none", busy_seconds=0.001 * rows
    )


def finish(lease: pb.Lease) -> pb.FinishJobRequest:
    """The end of a job whose every row was answered."""
    return pb.FinishJobRequest(
        lease=pb.LeaseKey(job=lease.spec.name, fence=lease.fence),
        output_data_version=_SHA,
        output_manifest_key=f"{parse_job(lease.spec.name).prefix}/output/manifest.json",
        tally=_tally(lease.row_count),
    )


def _tally(rows: int) -> records_pb2.RowTally:
    return records_pb2.RowTally(
        succeeded=rows, prompt_tokens=_PROMPT_TOKENS * rows, output_tokens=_OUTPUT_TOKENS * rows
    )

"""The scheduler as the gateway calls it: every call is idempotent, so one that finds it away is repeated."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from tidemill import channel, telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2, scheduler_service_pb2_grpc
from tidemill.serving import deadline
from tidemill.status import STATUS_OF, from_rpc_error
from tidemill.v1 import job_service_pb2

log = telemetry.logger(__name__)

_PAGE = 1000
_CALL_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


class Scheduler:
    """Calls over one channel. A call that fails as UNAVAILABLE is made again for `patience` seconds at most, and never
    beyond the deadline of the RPC that is being handled."""

    def __init__(self, connection: grpc.aio.Channel, patience: float) -> None:
        self._stub: Any = scheduler_service_pb2_grpc.SchedulerServiceStub(connection)
        self._patience = patience

    async def create_job(self, spec: records_pb2.JobSpec) -> records_pb2.JobRecord:
        """The new job, or the one that the same request id made before."""
        return await self._call(self._stub.CreateJob, scheduler_service_pb2.CreateJobRequest(spec=spec))

    async def open_writer(self, job: str) -> scheduler_service_pb2.OpenWriterResponse:
        """Become the job's only writer."""
        return await self._call(self._stub.OpenWriter, scheduler_service_pb2.OpenWriterRequest(job=job))

    async def commit_segment(self, request: scheduler_service_pb2.CommitSegmentRequest) -> int:
        """Move the durable end; returns it."""
        response = await self._call(self._stub.CommitSegment, request)
        return response.next_offset

    async def seal_job(self, request: scheduler_service_pb2.SealJobRequest) -> records_pb2.JobRecord:
        """Fix the rows and queue the job."""
        return await self._call(self._stub.SealJob, request)

    async def get_job(self, job: str) -> records_pb2.JobRecord:
        """The job now."""
        return await self._call(self._stub.GetJob, scheduler_service_pb2.GetJobRequest(job=job))

    async def list_jobs(self, request: scheduler_service_pb2.ListJobsRequest) -> scheduler_service_pb2.ListJobsResponse:
        """A page of a tenant's jobs."""
        return await self._call(self._stub.ListJobs, request)

    async def cancel_job(self, job: str) -> records_pb2.JobRecord:
        """Stop the job."""
        return await self._call(self._stub.CancelJob, scheduler_service_pb2.CancelJobRequest(job=job))

    async def pause_job(self, job: str) -> records_pb2.JobRecord:
        """Give the job no more leases."""
        return await self._call(self._stub.PauseJob, scheduler_service_pb2.PauseJobRequest(job=job))

    async def resume_job(self, job: str) -> records_pb2.JobRecord:
        """Let a paused job go on."""
        return await self._call(self._stub.ResumeJob, scheduler_service_pb2.ResumeJobRequest(job=job))

    async def update_job(self, request: scheduler_service_pb2.UpdateJobRequest) -> records_pb2.JobRecord:
        """Change the job's terms."""
        return await self._call(self._stub.UpdateJob, request)

    async def delete_job(self, job: str, revision: int = 0) -> scheduler_service_pb2.DeleteJobResponse:
        """Hide a terminal job; ETAG_MISMATCH when it has another revision than one that is given."""
        request = scheduler_service_pb2.DeleteJobRequest(job=job, revision=revision)
        return await self._call(self._stub.DeleteJob, request)

    async def estimate_job(
        self, request: scheduler_service_pb2.EstimateJobRequest
    ) -> job_service_pb2.EstimateJobResponse:
        """What a job would cost and when it would end."""
        response = await self._call(self._stub.EstimateJob, request)
        return response.estimate

    async def explain_job(self, job: str) -> scheduler_service_pb2.ExplainJobResponse:
        """What the job waits for."""
        return await self._call(self._stub.ExplainJob, scheduler_service_pb2.ExplainJobRequest(job=job))

    async def requeue_chunk(self, job: str, row_index: int) -> records_pb2.JobRecord:
        """Take the chunk of a row from its worker."""
        request = scheduler_service_pb2.RequeueChunkRequest(job=job, row_index=row_index)
        return await self._call(self._stub.RequeueChunk, request)

    async def force_fail_job(self, job: str, message: str) -> records_pb2.JobRecord:
        """End the job as FAILED."""
        request = scheduler_service_pb2.ForceFailJobRequest(job=job, message=message)
        return await self._call(self._stub.ForceFailJob, request)

    async def change_model(
        self, request: scheduler_service_pb2.ChangeModelRequest
    ) -> scheduler_service_pb2.ModelStatus:
        """Drain, undrain, pin or unpin a model."""
        return await self._call(self._stub.ChangeModel, request)

    async def list_segments(self, job: str) -> list[records_pb2.SegmentRef]:
        """All input segments of the job, by start."""
        segments: list[records_pb2.SegmentRef] = []
        more = True
        while more:
            after = segments[-1].start + segments[-1].count if segments else 0
            request = scheduler_service_pb2.ListSegmentsRequest(job=job, after_row=after, limit=_PAGE)
            response = await self._call(self._stub.ListSegments, request)
            segments.extend(response.segments)
            more = response.more
        return segments

    async def list_parts(self, job: str, after: int) -> scheduler_service_pb2.ListPartsResponse:
        """A slice of the job's result parts, behind the first `after`."""
        request = scheduler_service_pb2.ListPartsRequest(job=job, after_part=after, limit=_PAGE)
        return await self._call(self._stub.ListParts, request)

    async def list_completions(
        self, tenant: str, after_sequence: int, limit: int
    ) -> scheduler_service_pb2.ListCompletionsResponse:
        """A slice of the tenant's completion feed."""
        request = scheduler_service_pb2.ListCompletionsRequest(
            tenant=tenant, after_sequence=after_sequence, limit=limit
        )
        return await self._call(self._stub.ListCompletions, request)

    async def get_quota(self, tenant: str) -> scheduler_service_pb2.GetQuotaResponse:
        """A tenant's limits and what it uses."""
        return await self._call(self._stub.GetQuota, scheduler_service_pb2.GetQuotaRequest(tenant=tenant))

    async def list_models(self) -> scheduler_service_pb2.ListModelsResponse:
        """What the live workers offer."""
        return await self._call(self._stub.ListModels, scheduler_service_pb2.ListModelsRequest())

    async def watch_job(self, job: str, after_revision: int) -> AsyncIterator[records_pb2.JobRecord]:
        """Snapshots of the job above a revision until it is terminal; goes on after a restart of the scheduler."""
        retry = _Retry(self._patience)
        while True:
            request = scheduler_service_pb2.WatchJobRequest(job=job, after_revision=after_revision)
            call = self._stub.WatchJob(request, timeout=_seconds_left(), metadata=channel.trace_metadata())
            try:
                async for response in call:
                    after_revision = response.job.revision
                    retry = _Retry(self._patience)
                    yield response.job
            except grpc.aio.AioRpcError as exc:
                await retry.pause(from_rpc_error(exc))
            else:
                return
            finally:
                call.cancel()

    async def _call(self, method: Any, request: Any) -> Any:
        retry = _Retry(self._patience)
        while True:
            try:
                return await channel.call(method, request, timeout=_CALL_SECONDS)
            except TidemillError as exc:
                await retry.pause(exc)


class _Retry:
    """Pauses between attempts of one call, with jitter, up to a total."""

    def __init__(self, patience: float) -> None:
        self._end = time.monotonic() + patience
        self._pause = _FIRST_PAUSE_SECONDS

    async def pause(self, error: TidemillError) -> None:
        """Wait before the next attempt, or raise `error` when another one would not help."""
        if not _is_passing(error):
            raise error
        if time.monotonic() > self._end:
            raise TidemillError(
                Reason.UNAVAILABLE, f"the scheduler does not answer: {error.message}", retry_after=1.0
            ) from error
        if self._pause == _LONGEST_PAUSE_SECONDS:
            log.warning("scheduler away", error=error.message)
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)


def _seconds_left() -> float | None:
    end = deadline.get()
    return None if end is None else max(0.0, end - time.monotonic())


def _is_passing(error: TidemillError) -> bool:
    if error.reason is Reason.DEADLINE_EXCEEDED:
        # Ours for one attempt, unless the caller's own has passed.
        end = deadline.get()
        return end is None or time.monotonic() < end
    return STATUS_OF[error.reason] is grpc.StatusCode.UNAVAILABLE

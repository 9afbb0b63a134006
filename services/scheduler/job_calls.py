"""The RPCs of gateways that change a job, or follow it."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the generated servicer

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from services.scheduler.core import admission, jobs, quotas, writers
from services.scheduler.core.admission import Admission
from services.scheduler.core.checks import find_job
from services.scheduler.core.records import Job
from services.scheduler.engine import Events, Turn
from services.scheduler.shell import Shell
from services.scheduler.spans import job_span
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]


class JobCalls:
    """Create, fill, seal, cancel, watch."""

    _shell: Shell

    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> records_pb2.JobRecord:
        """Create a job, or find the one that the same call created."""
        spec = request.spec
        with job_span("scheduler.create", spec.traceparent, job=spec.name):
            while True:
                archivals = self._shell.engine.state.archivals
                archived = await self._shell.archive.find_same_request(spec)
                job = archived or await self._shell.engine.execute(lambda turn: self._create(turn, spec, archivals))  # noqa: B023
                if job is not None:
                    return self._shell.record(job)

    def _create(self, turn: Turn, spec: records_pb2.JobSpec, archivals: int) -> Job | None:
        """The job; None when jobs went to the archive after it was looked through, and this one may be among them."""
        if events := jobs.create_job(turn.state, spec, turn.now_ns):
            if turn.state.archivals != archivals:
                return None
            quotas.check_create(turn.state, spec.tenant, self._shell.quotas.of(spec.tenant))
            turn.record(events)
        return jobs.existing_job(turn.state, spec) or find_job(turn.state, spec.name)

    async def OpenWriter(self, request: pb.OpenWriterRequest, context: Context) -> pb.OpenWriterResponse:
        """Make the caller the only writer of a job."""

        def step(turn: Turn) -> pb.OpenWriterResponse:
            turn.record(writers.open_writer(turn.state, request.job))
            job = find_job(turn.state, request.job)
            return pb.OpenWriterResponse(
                writer_epoch=job.writer_epoch,
                next_offset=job.end,
                merkle_frontier=job.frontier,
                job=self._shell.record(job),
            )

        return await self._shell.archive.execute(request.job, step)

    async def CommitSegment(self, request: pb.CommitSegmentRequest, context: Context) -> pb.CommitSegmentResponse:
        """Move the durable end of a job."""

        def step(turn: Turn) -> pb.CommitSegmentResponse:
            if events := writers.commit_segment(turn.state, request):
                job = find_job(turn.state, request.job)
                quotas.check_append(turn.state, job, request.segment.count, self._shell.quotas.of(job.tenant))
                turn.record(events)
            return pb.CommitSegmentResponse(next_offset=request.segment.start + request.segment.count)

        return await self._shell.archive.execute(request.job, step)

    async def SealJob(self, request: pb.SealJobRequest, context: Context) -> records_pb2.JobRecord:
        """Fix a job's rows and queue it."""
        with job_span("scheduler.seal", self._shell.traceparent(request.job), job=request.job, rows=request.row_count):
            return await self._shell.change_job(request.job, lambda turn: self._seal(turn, request))

    def _seal(self, turn: Turn, request: pb.SealJobRequest) -> Events:
        def admit(job: Job) -> Admission:
            quotas.check_seal(turn.state, job, self._shell.quotas.of(job.tenant), turn.now_ns)
            return admission.admit(self._shell.outlooks.backlog(turn.state, turn.now_ns), job)

        return jobs.seal_job(turn.state, request, admit)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> records_pb2.JobRecord:
        """Stop a job."""
        return await self._shell.change_job(request.job, lambda turn: jobs.cancel_job(turn.state, request.job))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.WatchJobResponse]:
        """Follow a job until it is terminal."""
        async for record in self._shell.watches.watch(request.job, request.after_revision):
            yield pb.WatchJobResponse(job=record)

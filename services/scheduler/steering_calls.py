"""The RPCs that steer a job on its way."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the generated servicer

from typing import Any

import grpc.aio

from services.scheduler.core import cleanup, leasing, steering
from services.scheduler.core.admission import readmit
from services.scheduler.core.checks import find_job, require
from services.scheduler.core.times import to_timestamp
from services.scheduler.engine import Events, Turn
from services.scheduler.shell import Shell
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]


class SteeringCalls:
    """Pause, resume, update, delete, requeue, fail by force; end a cleanup task."""

    _shell: Shell

    async def PauseJob(self, request: pb.PauseJobRequest, context: Context) -> records_pb2.JobRecord:
        """Give a job no more leases."""
        return await self._shell.change_job(request.job, lambda turn: steering.pause_job(turn.state, request.job))

    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Context) -> records_pb2.JobRecord:
        """Let a paused job go on."""
        return await self._shell.change_job(request.job, lambda turn: steering.resume_job(turn.state, request.job))

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Context) -> records_pb2.JobRecord:
        """Change a job's deadline, class or policies."""
        return await self._shell.change_job(request.job, lambda turn: self._update(turn, request))

    def _update(self, turn: Turn, request: pb.UpdateJobRequest) -> Events:
        events = steering.update_job(turn.state, request, turn.now_ns)
        job = find_job(turn.state, request.job)
        accepts = request.accept_at_risk if request.HasField("accept_at_risk") else job.spec.accept_at_risk
        for event in events:
            backlog = self._shell.outlooks.backlog(turn.state, turn.now_ns)
            readmit(backlog, job, event.job_updated, accepts_risk=accepts)
        return events

    async def RequeueChunk(self, request: pb.RequeueChunkRequest, context: Context) -> records_pb2.JobRecord:
        """Take a chunk from its worker."""
        limits = self._shell.limits
        return await self._shell.change_job(
            request.job, lambda turn: leasing.requeue_chunk(turn.state, request.job, request.row_index, limits)
        )

    async def ForceFailJob(self, request: pb.ForceFailJobRequest, context: Context) -> records_pb2.JobRecord:
        """End a job as FAILED."""
        return await self._shell.change_job(request.job, lambda turn: steering.force_fail_job(turn.state, request))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:
        """Hide a terminal job; its data goes a day later."""

        def step(turn: Turn) -> pb.DeleteJobResponse:
            cleanup.check_revision(turn.state, request.job, request.revision)
            turn.record(cleanup.delete_job(turn.state, request.job, turn.now_ns))
            return pb.DeleteJobResponse(purge_time=to_timestamp(turn.state.cleanups[request.job].purge_ns))

        return await self._shell.engine.execute(step)

    async def FinishCleanup(self, request: pb.FinishCleanupRequest, context: Context) -> pb.FinishCleanupResponse:
        """End a cleanup task."""
        require(request.files >= 0, "files", "must not be negative")
        lease = request.lease

        def step(turn: Turn) -> pb.FinishCleanupResponse:
            turn.record(cleanup.finish_cleanup(turn.state, lease.job, lease.fence, request.files))
            return pb.FinishCleanupResponse()

        held = self._shell.engine.state.leases.get(lease.fence)
        if held is not None and held.purge and held.job == lease.job:
            # The archive forgets it first: should this process die in between, the task is done once more.
            await self._shell.archive.delete(lease.job)
        return await self._shell.engine.execute(step)

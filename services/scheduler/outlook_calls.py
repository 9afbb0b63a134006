"""The RPCs that look ahead: what a job would cost, and what it waits for."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the generated servicer

from typing import Any

import grpc.aio

from services.scheduler.core.admission import prepared
from services.scheduler.core.checks import find_job
from services.scheduler.core.explain import explain
from services.scheduler.core.whatif import estimate, imagined
from services.scheduler.engine import Turn
from services.scheduler.shell import Shell
from tidemill.internal.v1 import scheduler_service_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]


class OutlookCalls:
    """Estimate and explain."""

    _shell: Shell

    async def EstimateJob(self, request: pb.EstimateJobRequest, context: Context) -> pb.EstimateJobResponse:
        """What a job, real or imagined, would cost and when it would end."""

        def step(turn: Turn) -> pb.EstimateJobResponse:
            backlog = self._shell.outlooks.backlog(turn.state, turn.now_ns)
            if not request.job:
                return pb.EstimateJobResponse(estimate=estimate(backlog, imagined(backlog, request), request.row_count))
            job = find_job(turn.state, request.job)
            return pb.EstimateJobResponse(estimate=estimate(backlog, prepared(backlog, job), job.missing))

        return await self._shell.archive.execute(request.job, step)

    async def ExplainJob(self, request: pb.ExplainJobRequest, context: Context) -> pb.ExplainJobResponse:
        """What a job waits for and what would change it."""

        def step(turn: Turn) -> pb.ExplainJobResponse:
            job = find_job(turn.state, request.job)
            backlog = self._shell.outlooks.backlog(turn.state, turn.now_ns)
            return pb.ExplainJobResponse(job=self._shell.record(job), explanation=explain(backlog, job))

        return await self._shell.archive.execute(request.job, step)

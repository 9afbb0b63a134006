"""The RPCs of workers: take work, keep it, commit it, give it back, close a job."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the generated servicer

import re
import time
from typing import Any

import grpc.aio

from services.scheduler.core import endings, leasing, models, parts, views
from services.scheduler.core.checks import require
from services.scheduler.core.leasing import Requeue
from services.scheduler.engine import Turn
from services.scheduler.polling import MAX_WAIT_SECONDS
from services.scheduler.shell import Shell
from services.scheduler.spans import job_moment, job_span
from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]

MAX_CHUNKS = 1000
MAX_EXTENDED = 10_000

_UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


class WorkCalls:
    """Lease, extend, commit, release, finish."""

    _shell: Shell

    async def LeaseChunks(self, request: pb.LeaseChunksRequest, context: Context) -> pb.LeaseChunksResponse:
        """Long poll for work."""
        require(1 <= request.max_chunks <= MAX_CHUNKS, "max_chunks", f"must be 1 to {MAX_CHUNKS}")
        wait_seconds = request.wait.ToNanoseconds() / 1e9
        require(0 <= wait_seconds <= MAX_WAIT_SECONDS, "wait", f"must be 0 to {MAX_WAIT_SECONDS:.0f} s")
        worker = self._shell.report(request.worker_id, list(request.models))
        started = time.time_ns()
        leases = await self._shell.polls.lease(worker, request.max_chunks, wait_seconds)
        for lease in leases:
            # The time that the worker waited is not the job's; the span marks the hand-over.
            job_moment(
                "scheduler.lease",
                lease.spec.traceparent,
                max(started, time.time_ns() - 1_000_000),
                job=lease.spec.name,
                fence=lease.fence,
                worker=request.worker_id,
                chunk_start=lease.chunk_start,
                chunk_rows=lease.chunk_rows,
                attempt=lease.attempt,
            )
        # A hint: what was granted must reach the worker even while the state is being rebuilt.
        state = self._shell.engine.peek()
        pinned = models.pinned_models(state) if state else []
        drained = models.drained_models(state) if state else []
        return pb.LeaseChunksResponse(leases=leases, pinned_models=pinned, drained_models=drained)

    async def ExtendLeases(self, request: pb.ExtendLeasesRequest, context: Context) -> pb.ExtendLeasesResponse:
        """Keep leases alive and say which are void."""
        require(len(request.leases) <= MAX_EXTENDED, "leases", f"must be at most {MAX_EXTENDED}")
        self._shell.report(request.worker_id, list(request.models))
        self._renew(request)

        def step(turn: Turn) -> pb.ExtendLeasesResponse:
            response = pb.ExtendLeasesResponse(
                pinned_models=models.pinned_models(turn.state), drained_models=models.drained_models(turn.state)
            )
            for key in request.leases:
                if views.is_void(turn.state, key.job, key.fence, request.worker_id):
                    response.void.append(key)
                elif views.is_stopping(turn.state, key.job, key.fence):
                    response.stopping.append(key)
            return response

        return await self._shell.engine.execute(step)

    def _renew(self, request: pb.ExtendLeasesRequest) -> None:
        """At arrival, not in turn: a worker must not lose its leases because the ledger is slow."""
        state = self._shell.engine.state
        now = self._shell.clock.monotonic()
        for key in request.leases:
            if not views.is_void(state, key.job, key.fence, request.worker_id):
                self._shell.leases.renew(key.fence, now)

    async def CommitPart(self, request: pb.CommitPartRequest, context: Context) -> pb.CommitPartResponse:
        """Make result rows visible, once."""
        part = request.part

        def step(turn: Turn) -> pb.CommitPartResponse:
            events = turn.record(parts.commit_part(turn.state, request, self._shell.limits))
            done = views.chunk_done(turn.state, request.job, part.chunk_start)
            return pb.CommitPartResponse(duplicate=not events, chunk_done=done)

        with job_span(
            "scheduler.commit",
            self._shell.traceparent(request.job),
            job=request.job,
            fence=part.fence,
            part=part.part_number,
            rows=part.row_count,
        ):
            return await self._shell.archive.execute(request.job, step)

    async def ReleaseLease(self, request: pb.ReleaseLeaseRequest, context: Context) -> pb.ReleaseLeaseResponse:
        """Take a lease back."""
        requeue = _requeue(request)
        key = request.lease

        def step(turn: Turn) -> pb.ReleaseLeaseResponse:
            turn.record(leasing.release_lease(turn.state, key.job, key.fence, requeue, self._shell.limits))
            return pb.ReleaseLeaseResponse()

        return await self._shell.archive.execute(key.job, step)

    async def FinishJob(self, request: pb.FinishJobRequest, context: Context) -> records_pb2.JobRecord:
        """Make a job terminal."""
        name = request.lease.job
        with job_span("scheduler.finish", self._shell.traceparent(name), job=name, fence=request.lease.fence):
            return await self._shell.change_job(name, lambda turn: endings.finish_job(turn.state, request))


def _requeue(request: pb.ReleaseLeaseRequest) -> Requeue:
    fatal = request.fatal_reason
    require(not fatal or bool(_UPPER_SNAKE.fullmatch(fatal)), "fatal_reason", "must be UPPER_SNAKE_CASE")
    failed = request.failed or bool(fatal)
    reason = ledger_pb2.REQUEUE_REASON_FAILED if failed else ledger_pb2.REQUEUE_REASON_RELEASED
    if request.engine_died:
        reason = ledger_pb2.REQUEUE_REASON_ENGINE_DIED
    return Requeue(reason, request.message, fatal)

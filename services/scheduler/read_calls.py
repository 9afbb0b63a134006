"""The RPCs that only look."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the generated servicer

from typing import Any

import grpc.aio

from services.scheduler.core import views
from services.scheduler.core.checks import find_job, require
from services.scheduler.core.codec import part_message, segment_message
from services.scheduler.engine import Turn
from services.scheduler.job_search import find_jobs
from services.scheduler.page_bytes import fitting
from services.scheduler.shell import Shell, page_limit
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.names import check_tenant

Context = grpc.aio.ServicerContext[Any, Any]

MAX_JOBS = 1000
MAX_REFS = 1000
MAX_COMPLETIONS = 500


class ReadCalls:
    """Jobs, segments, parts, completions."""

    _shell: Shell

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> records_pb2.JobRecord:
        """One job."""
        return await self._shell.read_job(request.job)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """A page of a tenant's jobs, newest first."""
        tenant = check_tenant(request.tenant)
        limit = page_limit(request.page_size, "page_size", MAX_JOBS)
        found = await find_jobs(self._shell.archive, request, tenant, limit)
        jobs = fitting([self._shell.record(job) for job in found.jobs])
        rest = jobs[-1].spec.name if len(jobs) < len(found.jobs) else found.rest
        return pb.ListJobsResponse(jobs=jobs, more=bool(rest), next_before_name=rest)

    async def ListSegments(self, request: pb.ListSegmentsRequest, context: Context) -> pb.ListSegmentsResponse:
        """A slice of a job's input segments."""
        limit = page_limit(request.limit, "limit", MAX_REFS)

        def step(turn: Turn) -> pb.ListSegmentsResponse:
            job = find_job(turn.state, request.job)
            found = views.list_segments(turn.state, job.name, request.after_row, limit + 1)
            return pb.ListSegmentsResponse(
                segments=[segment_message(segment) for segment in found[:limit]], more=len(found) > limit
            )

        return await self._shell.archive.execute(request.job, step)

    async def ListParts(self, request: pb.ListPartsRequest, context: Context) -> pb.ListPartsResponse:
        """A slice of a job's result parts."""
        limit = page_limit(request.limit, "limit", MAX_REFS)
        require(request.after_part >= 0, "after_part", "must not be negative")

        def step(turn: Turn) -> pb.ListPartsResponse:
            job = find_job(turn.state, request.job)
            found = views.list_parts(turn.state, job.name, request.after_part, limit + 1)
            return pb.ListPartsResponse(
                parts=[part_message(part) for part in found[:limit]], more=len(found) > limit, state=job.state
            )

        return await self._shell.archive.execute(request.job, step)

    async def ListCompletions(self, request: pb.ListCompletionsRequest, context: Context) -> pb.ListCompletionsResponse:
        """A slice of a tenant's feed of accepted and finished jobs."""
        tenant = check_tenant(request.tenant)
        limit = page_limit(request.limit, "limit", MAX_COMPLETIONS)

        found, end = await self._shell.archive.list_completions(tenant, request.after_sequence, limit)
        records = [
            pb.CompletionRecord(sequence=entry.sequence, kind=entry.kind, job=self._shell.record(job))
            for entry, job in found
        ]
        page = fitting(records)
        if len(page) < len(records):
            end = page[-1].sequence
        return pb.ListCompletionsResponse(
            completions=page, next_sequence=end, ledger_uid=self._shell.engine.opened.ledger_uid
        )

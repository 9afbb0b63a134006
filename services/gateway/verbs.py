"""`PauseJob`, `ResumeJob`, `UpdateJob`, `DeleteJob`, `EstimateJob`, `ExplainJob`."""

from collections.abc import Iterator

from services.gateway.auth import Principal
from services.gateway.convert import etag_of, public_job
from services.gateway.job_fields import check_create, raise_violations
from services.gateway.jobs import new_spec
from services.gateway.scheduler import Scheduler
from services.gateway.update_fields import checked_change
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2

pb = job_service_pb2


class Verbs:
    """What an owner may do to a job, or ask about it."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore) -> None:
        self._scheduler = scheduler
        self._store = store

    async def pause(self, principal: Principal, request: pb.PauseJobRequest) -> job_pb2.Job:
        """Give a job no more work."""
        return public_job(await self._scheduler.pause_job(str(principal.job(request.name))), self._store)

    async def resume(self, principal: Principal, request: pb.ResumeJobRequest) -> job_pb2.Job:
        """Let a paused job go on."""
        return public_job(await self._scheduler.resume_job(str(principal.job(request.name))), self._store)

    async def update(self, principal: Principal, request: pb.UpdateJobRequest) -> job_pb2.Job:
        """Change what the mask names."""
        change = checked_change(request)
        principal.job(change.job)
        return public_job(await self._scheduler.update_job(change), self._store)

    async def delete(self, principal: Principal, request: pb.DeleteJobRequest) -> pb.DeleteJobResponse:
        """Hide a terminal job; its data goes later."""
        name = str(principal.job(request.name))
        revision = await self._revision(name, request.etag) if request.etag else 0
        deleted = await self._scheduler.delete_job(name, revision)
        return pb.DeleteJobResponse(purge_time=deleted.purge_time)

    async def _revision(self, name: str, etag: str) -> int:
        """The revision that an etag names; ETAG_MISMATCH when the job has another by now."""
        try:
            record = await self._scheduler.get_job(name)
        except TidemillError as exc:
            if exc.reason is not Reason.JOB_NOT_FOUND:
                raise
            # Deleted already, which is fine, or never there: the scheduler tells them apart.
            return 0
        if etag_of(record) != etag:
            raise TidemillError(
                Reason.ETAG_MISMATCH,
                f"job {name} is not as it was when its etag was read: read it again and decide anew",
                metadata={"job": name, "etag": etag_of(record)},
            )
        return record.revision

    async def estimate(self, principal: Principal, request: pb.EstimateJobRequest) -> pb.EstimateJobResponse:
        """What a job would cost: one that exists, as it stands, or an imagined one."""
        principal.check_parent(request.parent)
        wanted = scheduler_service_pb2.EstimateJobRequest(
            row_count=request.row_count,
            prompt_tokens_per_row=request.prompt_tokens_per_row,
            output_tokens_per_row=request.output_tokens_per_row,
        )
        if request.job.name:
            raise_violations(list(_beside_name(request.job)))
            wanted.job = str(principal.job(request.job.name))
        else:
            create = pb.CreateJobRequest(job=request.job)
            check_create(create)
            raise_violations(list(_check_shape(request)))
            wanted.spec.CopyFrom(new_spec(principal.tenant, create))
        return await self._scheduler.estimate_job(wanted)

    async def explain(self, principal: Principal, request: pb.ExplainJobRequest) -> pb.ExplainJobResponse:
        """What a job waits for."""
        found = await self._scheduler.explain_job(str(principal.job(request.name)))
        response = pb.ExplainJobResponse()
        response.CopyFrom(found.explanation)
        response.job.CopyFrom(public_job(found.job, self._store))
        return response


def _beside_name(job: job_pb2.Job) -> Iterator[FieldViolation]:
    for field, _ in job.ListFields():
        if field.name != "name":
            yield FieldViolation(f"job.{field.name}", "leave it out: a job that is named is estimated as it stands")


def _check_shape(request: pb.EstimateJobRequest) -> Iterator[FieldViolation]:
    if request.row_count < 1:
        yield FieldViolation("row_count", f"is {request.row_count}; it must be 1 or more")
    for name in ("prompt_tokens_per_row", "output_tokens_per_row"):
        if (value := getattr(request, name)) < 0:
            yield FieldViolation(name, f"is {value}; it must be 1 or more, or unset for what is usual")

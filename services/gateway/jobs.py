"""`CreateJob`, `GetJob`, `ListJobs`, `CancelJob`."""

import hashlib
import time
from collections.abc import Iterator

from services.gateway.auth import Principal
from services.gateway.catalogue import ModelCatalogue
from services.gateway.convert import public_job
from services.gateway.job_fields import check_create, check_job_sampling, check_labels, deadline_of, raise_violations
from services.gateway.page_size import checked_page_size
from services.gateway.page_tokens import PageTokens
from services.gateway.scheduler import Scheduler
from services.gateway.tasks import tasks_of
from tidemill import names, telemetry
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2

_DEFAULT_PAGE = 50
_LARGEST_PAGE = 1000


class Jobs:
    """Jobs as resources."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore, catalogue: ModelCatalogue, tokens: PageTokens) -> None:
        self._scheduler = scheduler
        self._store = store
        self._catalogue = catalogue
        self._tokens = tokens

    async def create(self, principal: Principal, request: job_service_pb2.CreateJobRequest) -> records_pb2.JobRecord:
        """Create a job, or return the one that the same request id created."""
        return await self.create_from(await self.checked_spec(principal, request))

    async def checked_spec(
        self, principal: Principal, request: job_service_pb2.CreateJobRequest
    ) -> records_pb2.JobSpec:
        """What the request fixes, under a new name."""
        principal.check_parent(request.parent)
        check_create(request)
        model = await self._catalogue.require(request.job.model)
        check_job_sampling(request.job, model.max_model_len, tasks_of(model))
        return new_spec(principal.tenant, request)

    async def create_from(self, spec: records_pb2.JobSpec) -> records_pb2.JobRecord:
        """Create the job, or return the one that the same request id created."""
        return await self._scheduler.create_job(spec)

    async def get(self, principal: Principal, request: job_service_pb2.GetJobRequest) -> job_pb2.Job:
        """One job."""
        record = await self._scheduler.get_job(str(principal.job(request.name)))
        return public_job(record, self._store)

    async def cancel(self, principal: Principal, request: job_service_pb2.CancelJobRequest) -> job_pb2.Job:
        """Stop a job."""
        record = await self._scheduler.cancel_job(str(principal.job(request.name)))
        return public_job(record, self._store)

    async def list(
        self, principal: Principal, request: job_service_pb2.ListJobsRequest
    ) -> job_service_pb2.ListJobsResponse:
        """A page of the tenant's jobs, newest first."""
        principal.check_parent(request.parent)
        states = _checked_states(request)
        raise_violations([*_check_model(request.model), *check_labels(request.labels, "labels")])
        # Labels as a sorted list: a map has no order that a token could be bound to.
        query = ("jobs", principal.tenant, states, request.model, sorted(request.labels.items()))
        wanted = scheduler_service_pb2.ListJobsRequest(
            tenant=principal.tenant,
            page_size=checked_page_size(request.page_size, "page_size", _DEFAULT_PAGE, _LARGEST_PAGE),
            before_name=self._tokens.open(query, request.page_token),
            states=states,
            model=request.model,
            labels=request.labels,
        )
        page = await self._scheduler.list_jobs(wanted)
        response = job_service_pb2.ListJobsResponse(jobs=[public_job(record, self._store) for record in page.jobs])
        if page.more:
            response.next_page_token = self._tokens.seal(query, page.next_before_name)
        return response


def _check_model(model: str) -> Iterator[FieldViolation]:
    if (size := len(model.encode())) > names.MAX_MODEL_BYTES:
        yield FieldViolation("model", f"has {size} bytes; a model's id has at most {names.MAX_MODEL_BYTES}")


def _checked_states(request: job_service_pb2.ListJobsRequest) -> "tuple[job_pb2.JobState.ValueType, ...]":
    states = tuple(sorted(set(request.states)))
    unknown = [state for state in states if state == 0 or state not in job_pb2.JobState.values()]
    if unknown:
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"states has unknown values {unknown}",
            violations=[FieldViolation("states", "use values of JobState other than UNSPECIFIED")],
        )
    return states


def new_spec(tenant: str, request: job_service_pb2.CreateJobRequest) -> records_pb2.JobSpec:
    """What a checked request fixes, under a new name."""
    job = request.job
    spec = records_pb2.JobSpec(
        name=str(names.JobName(tenant, names.new_job_id())),
        tenant=tenant,
        model=job.model,
        complete_by_time=deadline_of(job, time.time_ns()),
        execution_mode=job.execution_mode,
        dataset=job.dataset,
        labels=job.labels,
        origin_run_id=job.origin_run_id,
        request_id=request.request_id,
        # Of what the caller sent: a window is relative to the call and must not make a repeated call another one.
        request_digest=hashlib.sha256(job.SerializeToString(deterministic=True)).digest(),
        traceparent=telemetry.current_traceparent(),
        service_class=job.service_class or job_pb2.SERVICE_CLASS_STANDARD,
        on_deadline=job.on_deadline or job_pb2.DEADLINE_POLICY_RUN_LATE,
        escalation=job.escalation,
        accept_at_risk=job.accept_at_risk,
    )
    if job.HasField("sampling"):
        spec.sampling.CopyFrom(job.sampling)
    return spec

"""`CreateJob`: creates a job, or only says whether it could be, with an advice on its deadline."""

from collections.abc import Iterator

from services.gateway.auth import Principal
from services.gateway.convert import public_job
from services.gateway.job_fields import raise_violations
from services.gateway.jobs import Jobs
from services.gateway.limits import MAX_EXPECTED_ROWS, MAX_EXPECTED_TOKENS_PER_ROW
from services.gateway.scheduler import Scheduler
from tidemill.errors import FieldViolation
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2

Request = job_service_pb2.CreateJobRequest


class CreateJob:
    """Handles creations."""

    def __init__(self, jobs: Jobs, scheduler: Scheduler, store: ObjectStore) -> None:
        self._jobs = jobs
        self._scheduler = scheduler
        self._store = store

    async def handle(self, principal: Principal, request: Request) -> job_pb2.Job:
        """The new job, or what it would be; with `expected_rows`, what to expect of its deadline."""
        raise_violations(list(_check_expectation(request)))
        spec = await self._jobs.checked_spec(principal, request)
        # Asked first, so that no job is there without an answer.
        advice = await self._scheduler.estimate_job(_question(request, spec)) if request.expected_rows else None
        record = _imagined(spec) if request.validate_only else await self._jobs.create_from(spec)
        job = public_job(record, self._store)
        if advice is not None and job.state == job_pb2.JOB_STATE_RECEIVING:
            _advise(job, advice)
        if request.validate_only:
            job.ClearField("name")
            job.ClearField("etag")
        return job


def refuse_in_submission(request: Request) -> None:
    """Raise INVALID_ARGUMENT for what a call that brings its rows along cannot do."""
    raise_violations(
        [
            FieldViolation(f"create.{field.name}", f"{field.name} is for CreateJob: leave it out of a submission")
            for field, _ in request.ListFields()
            if field.name in ("validate_only", "expected_rows", "expected_tokens")
        ]
    )


def _check_expectation(request: Request) -> Iterator[FieldViolation]:
    rows, tokens = request.expected_rows, request.expected_tokens
    if not 0 <= rows <= MAX_EXPECTED_ROWS:
        yield FieldViolation("expected_rows", f"is {rows}; it must be 0 to {MAX_EXPECTED_ROWS}")
    elif tokens and not rows:
        yield FieldViolation("expected_tokens", "says nothing without expected_rows; set both")
    elif not 0 <= tokens <= rows * MAX_EXPECTED_TOKENS_PER_ROW:
        most = rows * MAX_EXPECTED_TOKENS_PER_ROW
        yield FieldViolation("expected_tokens", f"is {tokens}; it must be 0 to {most} for {rows} rows")


def _question(request: Request, spec: records_pb2.JobSpec) -> scheduler_service_pb2.EstimateJobRequest:
    return scheduler_service_pb2.EstimateJobRequest(
        spec=spec,
        row_count=request.expected_rows,
        prompt_tokens_per_row=-(-request.expected_tokens // request.expected_rows),
    )


def _imagined(spec: records_pb2.JobSpec) -> records_pb2.JobRecord:
    return records_pb2.JobRecord(
        spec=spec,
        state=job_pb2.JOB_STATE_RECEIVING,
        dataset=spec.dataset,
        service_class=spec.service_class,
        on_deadline=spec.on_deadline,
        escalation=spec.escalation,
        complete_by_time=spec.complete_by_time,
    )


def _advise(job: job_pb2.Job, advice: job_service_pb2.EstimateJobResponse) -> None:
    if not advice.HasField("eta_p90_time"):
        # Nobody can tell an end yet: no model of that name is measured, or no worker is there.
        return
    job.sla_state = job_pb2.SLA_STATE_ON_TRACK if advice.feasible else job_pb2.SLA_STATE_AT_RISK
    for name in ("eta_p50_time", "eta_p90_time"):
        if advice.HasField(name):
            getattr(job, name).CopyFrom(getattr(advice, name))

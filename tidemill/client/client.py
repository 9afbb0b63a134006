"""The synchronous client of the gateway."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, Unpack

from tidemill.client.admin import Admin
from tidemill.client.append import Appender
from tidemill.client.job import JobHandle
from tidemill.client.parameters import FieldError, build_sampling
from tidemill.client.rows import RowLike, to_rows
from tidemill.client.settings import resolve
from tidemill.client.terms import Deadline, Terms, set_deadline, set_terms
from tidemill.client.tracing import traceparent
from tidemill.client.transport import PATIENCE_SECONDS, Transport
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2, row_pb2


class Client:
    """Submits jobs to a gateway and reads their answers. Use it as a context manager, or call `close`.

    Every method may raise `tidemill.errors.TidemillError`; its `reason` is stable, its message says what to do.
    """

    def __init__(
        self, address: str | None = None, api_key: str | None = None, *, patience: float = PATIENCE_SECONDS
    ) -> None:
        """Connect lazily to `address` (`host:port`, or `grpcs://host:port` for TLS) with `api_key`.

        Without arguments: `TIDEMILL_ADDRESS` and `TIDEMILL_API_KEY`, else the service that `tidemill up` runs here.
        `patience`: seconds that a call goes on trying while the service is away.
        """
        self._transport = Transport(resolve(address, api_key), patience)
        self.admin = Admin(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def submit(
        self,
        rows: Iterable[RowLike],
        *,
        model: str,
        deadline: Deadline | None = None,
        sampling: Mapping[str, Any] | None = None,
        dataset: str = "",
        labels: Mapping[str, str] | None = None,
        execution: str = "",
        origin_run_id: str = "",
        request_id: str = "",
        **terms: Unpack[Terms],
    ) -> JobHandle:
        """Create a job, append `rows` as they come, seal it, and return its handle. Rows are never held all at once.

        Args:
            rows: prompts, dictionaries or messages, see `tidemill.client.rows.RowLike`; a generator is fine.
            model: id as `models()` lists it.
            deadline: `"2h"`, seconds, a timedelta, or a datetime with a time zone. Default: 24 hours.
            sampling: defaults for every row, such as `{"temperature": 0, "max_tokens": 64}`.
            dataset: name of the output dataset.
            labels: up to 16.
            execution: `"shared"` or `"dedicated"`; the service chooses by default.
            origin_run_id: run id of the orchestrator that submits.
            request_id: makes the call repeatable: with the same id and the same rows it resumes the job it began.
            terms: `service_class`, `on_deadline`, `escalate`, `accept_at_risk`, see `tidemill.client.terms.Terms`.

        DEADLINE_INFEASIBLE, whose metadata name the `earliest_feasible_time`, leaves the job unsealed: update its
        deadline and seal it again.
        """
        job = self.new_job(
            model=model,
            deadline=deadline,
            sampling=sampling,
            dataset=dataset,
            labels=labels,
            execution=execution,
            origin_run_id=origin_run_id,
            **terms,
        )
        handle, created = self.create(job, request_id=request_id)
        if created.state == job_pb2.JOB_STATE_RECEIVING:
            self.seal(handle, self.append(handle, rows))
        return handle

    def new_job(
        self,
        *,
        model: str,
        deadline: Deadline | None = None,
        sampling: Mapping[str, Any] | None = None,
        dataset: str = "",
        labels: Mapping[str, str] | None = None,
        execution: str = "",
        origin_run_id: str = "",
        **terms: Unpack[Terms],
    ) -> job_pb2.Job:
        """The job that `submit` creates from these arguments."""
        job = job_pb2.Job(model=model, dataset=dataset, labels=labels, origin_run_id=origin_run_id)
        if sampling is not None:
            job.sampling.CopyFrom(_sampling(sampling))
        if execution not in _EXECUTION:
            raise TidemillError(Reason.INVALID_ARGUMENT, f"execution is 'shared' or 'dedicated', not {execution!r}")
        job.execution_mode = _EXECUTION[execution]
        if deadline is not None:
            set_deadline(job, deadline)
        set_terms(job, terms)
        return job

    def create(self, job: job_pb2.Job, *, request_id: str = "") -> tuple[JobHandle, job_pb2.Job]:
        """Create `job`, or find the one that the same `request_id` created; it receives rows until it is sealed."""
        trace = traceparent()
        request = job_service_pb2.CreateJobRequest(job=job, request_id=request_id or uuid.uuid4().hex)
        created: job_pb2.Job = self._transport.call(self._transport.jobs.CreateJob, request, trace=trace)
        return JobHandle(self._transport, created.name, trace=trace), created

    def append(self, handle: JobHandle, rows: Iterable[RowLike]) -> int:
        """Append `rows`, which begin at row 0 of the job, durably, and return how many there are.

        A fault leaves the job open and what was acknowledged intact; the exception's notes name the job.
        """
        try:
            return Appender(self._transport, handle.name, handle.trace).append(to_rows(rows))
        except Exception as exc:
            exc.add_note(f"{handle.name} is left unsealed with the rows acknowledged so far")
            raise

    def seal(self, handle: JobHandle, row_count: int) -> job_pb2.Job:
        """Fix the job's rows, `row_count` of them, and queue it."""
        request = job_service_pb2.SealJobRequest(name=handle.name, row_count=row_count)
        return self._transport.call(self._transport.jobs.SealJob, request, trace=handle.trace)

    def run(self, prompts: Iterable[RowLike], *, model: str, **options: Any) -> list[row_pb2.RowResult]:
        """Submit `prompts`, wait, and return their results in the same order. `options` are those of `submit`.

        A row that failed has its `error_code` and `error_message` set and no text.
        """
        return list(self.submit(prompts, model=model, **options).results())

    def estimate(
        self,
        rows: int,
        *,
        model: str,
        prompt_tokens: int = 0,
        output_tokens: int = 0,
        deadline: Deadline | None = None,
        sampling: Mapping[str, Any] | None = None,
        **terms: Unpack[Terms],
    ) -> job_service_pb2.EstimateJobResponse:
        """What a job of `rows` rows would cost and when it would end, without creating it.

        `prompt_tokens` and `output_tokens` are means over the rows; 0 takes what is usual for the model.
        """
        request = job_service_pb2.EstimateJobRequest(
            job=self.new_job(model=model, deadline=deadline, sampling=sampling, **terms),
            row_count=rows,
            prompt_tokens_per_row=prompt_tokens,
            output_tokens_per_row=output_tokens,
        )
        return self._transport.call(self._transport.jobs.EstimateJob, request)

    def job(self, name: str) -> JobHandle:
        """The job called `name`: its full name or the ULID at its end. Only the latter asks the service."""
        return JobHandle(self._transport, name if "/" in name else self._full_name(name), trace=traceparent())

    def _full_name(self, job_id: str) -> str:
        # The key knows its tenant and the client does not; any job of the tenant tells it.
        for job in self.jobs(page_size=1):
            return f"{job.name.rpartition('/')[0]}/{job_id}"
        raise TidemillError(Reason.JOB_NOT_FOUND, f"no job {job_id!r}: you have no jobs yet", metadata={"job": job_id})

    def jobs(self, states: Iterable[str] = (), page_size: int = 100) -> Iterator[job_pb2.Job]:
        """The tenant's jobs in `states` (such as `"running"`; none means all), newest first, fetched page by page."""
        request = job_service_pb2.ListJobsRequest(page_size=page_size)
        request.states.extend(_states(states))
        while True:
            page = self._transport.call(self._transport.jobs.ListJobs, request)
            yield from page.jobs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def models(self) -> list[model_service_pb2.Model]:
        """The models that live workers offer."""
        request, models = model_service_pb2.ListModelsRequest(), list[model_service_pb2.Model]()
        while True:
            page = self._transport.call(self._transport.models.ListModels, request)
            models.extend(page.models)
            if not page.next_page_token:
                return models
            request.page_token = page.next_page_token


def _sampling(values: Mapping[str, Any]) -> row_pb2.SamplingParams:
    try:
        return build_sampling(values, "sampling.")
    except FieldError as exc:
        raise TidemillError(exc.reason, str(exc)) from None


_EXECUTION: dict[str, job_pb2.ExecutionMode.ValueType] = {
    "": job_pb2.EXECUTION_MODE_UNSPECIFIED,
    "shared": job_pb2.EXECUTION_MODE_SHARED,
    "dedicated": job_pb2.EXECUTION_MODE_DEDICATED,
}


def _states(names: Iterable[str]) -> Iterator[job_pb2.JobState.ValueType]:
    known = [name.removeprefix("JOB_STATE_") for name in job_pb2.JobState.keys()[1:]]
    for name in names:
        if name.upper() not in known:
            message = f"{name!r} is not a job state; states are {', '.join(known).lower()}"
            raise TidemillError(Reason.INVALID_ARGUMENT, message)
        yield job_pb2.JobState.Value(f"JOB_STATE_{name.upper()}")

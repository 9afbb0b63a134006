"""What a caller asks of the service for a job: its deadline, its class, and what happens when the deadline is near."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypedDict, Unpack, cast

from google.protobuf import duration_pb2, timestamp_pb2

from tidemill.client.durations import parse_duration
from tidemill.client.parameters import FieldError, build_sampling
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, row_pb2

Deadline = str | float | timedelta | datetime


class Terms(TypedDict, total=False):
    """Options of `JobHandle.update`, and of `JobOptions`; what is left out stays at its default.

    service_class: `"urgent"`, `"standard"` (default) or `"flex"`: the share of a busy service.
    on_deadline: `"run_late"` (default), or `"expire"`: end there and keep the finished rows.
    escalate: what the service may do when the job is at risk: `"raise_class"`, `"more_parallelism"`.
    accept_at_risk: seal the job although its deadline may not hold, instead of DEADLINE_INFEASIBLE.
    """

    service_class: str
    on_deadline: str
    escalate: Collection[str]
    accept_at_risk: bool


class JobOptions(Terms, total=False):
    """Options of `Client.submit` and `Client.run`, besides `Terms`.

    deadline: `"2h"`, seconds, a timedelta, or a datetime with a time zone. Default: 24 hours.
    sampling: defaults for every row, such as `{"temperature": 0, "max_tokens": 64}`.
    dataset: name of the output dataset.
    labels: up to 16.
    execution: `"shared"` or `"dedicated"`; the service chooses by default.
    origin_run_id: run id of the orchestrator that submits.
    """

    deadline: Deadline | None
    sampling: Mapping[str, Any] | None
    dataset: str
    labels: Mapping[str, str] | None
    execution: str
    origin_run_id: str


_CLASSES: dict[str, int] = {
    "urgent": job_pb2.SERVICE_CLASS_URGENT,
    "standard": job_pb2.SERVICE_CLASS_STANDARD,
    "flex": job_pb2.SERVICE_CLASS_FLEX,
}
_POLICIES: dict[str, int] = {
    "run_late": job_pb2.DEADLINE_POLICY_RUN_LATE,
    "expire": job_pb2.DEADLINE_POLICY_EXPIRE,
}
_EXECUTIONS: dict[str, int] = {
    "": job_pb2.EXECUTION_MODE_UNSPECIFIED,
    "shared": job_pb2.EXECUTION_MODE_SHARED,
    "dedicated": job_pb2.EXECUTION_MODE_DEDICATED,
}
ESCALATIONS = ("raise_class", "more_parallelism")


def new_job(model: str, **options: Unpack[JobOptions]) -> job_pb2.Job:
    """The job that `Client.submit` creates from these options; INVALID_ARGUMENT names what is wrong in them."""
    terms: dict[str, Any] = {name: value for name, value in options.items() if name in Terms.__annotations__}
    rest: dict[str, Any] = {name: value for name, value in options.items() if name not in terms}
    execution, sampling, deadline = (rest.pop(name, None) for name in ("execution", "sampling", "deadline"))
    if unknown := rest.keys() - {"dataset", "labels", "origin_run_id"}:
        _refuse_option(unknown.pop())
    job = job_pb2.Job(model=model, **rest)
    if sampling is not None:
        job.sampling.CopyFrom(_sampling(sampling))
    job.execution_mode = cast("Any", _one_of(_EXECUTIONS, "execution", execution or ""))
    if deadline is not None:
        set_deadline(job, deadline)
    set_terms(job, cast("Terms", terms))
    return job


def _sampling(values: Mapping[str, Any]) -> row_pb2.SamplingParams:
    try:
        return build_sampling(values, "sampling.")
    except FieldError as exc:
        raise TidemillError(exc.reason, str(exc)) from None


def set_terms(job: job_pb2.Job, terms: Terms) -> list[str]:
    """Write `terms` into `job` and return the paths of the fields written; INVALID_ARGUMENT names what is unknown."""
    return [path for name, value in terms.items() for path in _set(job, name, value)]


def set_deadline(job: job_pb2.Job, deadline: Deadline) -> str:
    """Write the deadline into `job` and return the path of the field written."""
    if isinstance(deadline, datetime):
        if deadline.tzinfo is None:
            raise TidemillError(Reason.INVALID_ARGUMENT, "a deadline given as datetime needs a time zone")
        moment = timestamp_pb2.Timestamp()
        moment.FromDatetime(deadline)
        job.complete_by_time.CopyFrom(moment)
        return "complete_by_time"
    job.completion_window.CopyFrom(window_of(deadline))
    return "completion_window"


def window_of(deadline: str | float | timedelta) -> duration_pb2.Duration:
    """A deadline that counts from the call."""
    if isinstance(deadline, str):
        deadline = parse_duration(deadline)
    window = duration_pb2.Duration()
    window.FromTimedelta(deadline if isinstance(deadline, timedelta) else timedelta(seconds=deadline))
    return window


def _set(job: job_pb2.Job, name: str, value: Any) -> Iterator[str]:
    match name:
        case "service_class":
            job.service_class = cast("Any", _one_of(_CLASSES, name, value))
        case "on_deadline":
            job.on_deadline = cast("Any", _one_of(_POLICIES, name, value))
        case "escalate":
            job.escalation.CopyFrom(_escalation(value))
            name = "escalation"
        case "accept_at_risk":
            job.accept_at_risk = bool(value)
        case _:
            _refuse_option(name)
    yield name


def _refuse_option(name: str) -> NoReturn:
    known = ", ".join(JobOptions.__annotations__)
    raise TidemillError(Reason.INVALID_ARGUMENT, f"{name} is not an option of a job; options are {known}")


def _one_of(known: Mapping[str, int], name: str, value: Any) -> int:
    if value not in known:
        choices = ", ".join(filter(None, known))
        raise TidemillError(Reason.INVALID_ARGUMENT, f"{name} is one of {choices}, not {value!r}")
    return known[value]


def _escalation(value: str | Collection[str]) -> job_pb2.Escalation:
    actions = (value,) if isinstance(value, str) else value
    if unknown := [action for action in actions if action not in ESCALATIONS]:
        raise TidemillError(Reason.INVALID_ARGUMENT, f"escalate takes {' and '.join(ESCALATIONS)}, not {unknown[0]!r}")
    return job_pb2.Escalation(**dict.fromkeys(actions, True))

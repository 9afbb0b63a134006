"""What a caller asks of the service for a job: its deadline, its class, and what happens when the deadline is near."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict, cast

from google.protobuf import duration_pb2, timestamp_pb2

from tidemill.client.durations import parse_duration
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2

Deadline = str | float | timedelta | datetime


class Terms(TypedDict, total=False):
    """Options of `Client.submit`, `Client.estimate` and `JobHandle.update`; what is left out stays at its default.

    service_class: `"urgent"`, `"standard"` (default) or `"flex"`: the share of a busy service.
    on_deadline: `"run_late"` (default), or `"expire"`: end there and keep the finished rows.
    escalate: what the service may do when the job is at risk: `"raise_class"`, `"more_parallelism"`.
    accept_at_risk: seal the job although its deadline may not hold, instead of DEADLINE_INFEASIBLE.
    """

    service_class: str
    on_deadline: str
    escalate: Collection[str]
    accept_at_risk: bool


_CLASSES: dict[str, int] = {
    "urgent": job_pb2.SERVICE_CLASS_URGENT,
    "standard": job_pb2.SERVICE_CLASS_STANDARD,
    "flex": job_pb2.SERVICE_CLASS_FLEX,
}
_POLICIES: dict[str, int] = {
    "run_late": job_pb2.DEADLINE_POLICY_RUN_LATE,
    "expire": job_pb2.DEADLINE_POLICY_EXPIRE,
}
ESCALATIONS = ("raise_class", "more_parallelism")


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
            known = ", ".join(Terms.__annotations__)
            raise TidemillError(Reason.INVALID_ARGUMENT, f"{name} is not an option of a job; options are {known}")
    yield name


def _one_of(known: Mapping[str, int], name: str, value: Any) -> int:
    if value not in known:
        raise TidemillError(Reason.INVALID_ARGUMENT, f"{name} is one of {', '.join(known)}, not {value!r}")
    return known[value]


def _escalation(value: str | Collection[str]) -> job_pb2.Escalation:
    actions = (value,) if isinstance(value, str) else value
    if unknown := [action for action in actions if action not in ESCALATIONS]:
        raise TidemillError(Reason.INVALID_ARGUMENT, f"escalate takes {' and '.join(ESCALATIONS)}, not {unknown[0]!r}")
    return job_pb2.Escalation(**dict.fromkeys(actions, True))

"""What `UpdateJob` may change, path by path of its mask."""

import time
from collections.abc import Callable, Iterator

from services.gateway.job_fields import check_deadline, check_terms, deadline_of, raise_violations
from tidemill.errors import FieldViolation
from tidemill.internal.v1 import scheduler_service_pb2
from tidemill.v1 import job_pb2, job_service_pb2

Change = scheduler_service_pb2.UpdateJobRequest

_DEADLINES = ("complete_by_time", "completion_window")


def checked_change(request: job_service_pb2.UpdateJobRequest) -> Change:
    """The change for the scheduler; INVALID_ARGUMENT or DEADLINE_OUT_OF_RANGE, naming every offending field.

    Fields of the job outside the mask are not looked at (https://google.aip.dev/134).
    """
    paths = list(request.update_mask.paths)
    masked = _masked(request.job, paths)
    raise_violations([*_check_mask(request, paths), *check_terms(masked)], list(check_deadline(masked, "job.")))
    change = Change(job=request.job.name)
    for path in paths:
        _APPLY[path](change, masked)
    return change


def _masked(job: job_pb2.Job, paths: list[str]) -> job_pb2.Job:
    masked = job_pb2.Job()
    for field, value in job.ListFields():
        if field.name in paths and field.name in _APPLY:
            masked.MergeFrom(job_pb2.Job(**{field.name: value}))
    return masked


def _check_mask(request: job_service_pb2.UpdateJobRequest, paths: list[str]) -> Iterator[FieldViolation]:
    if not request.job.name:
        yield FieldViolation("job.name", "is missing; give tenants/{tenant}/jobs/{job}")
    if not paths:
        yield FieldViolation("update_mask", f"is empty; name at least one of {_known()}")
    for path in paths:
        if path not in _APPLY:
            yield FieldViolation("update_mask", f"path {path[:64]!r} cannot be changed; use {_known()}")
    if all(name in paths for name in _DEADLINES):
        yield FieldViolation("update_mask", "names complete_by_time and completion_window; give one of them")
    for name in _DEADLINES:
        if name in paths and not request.job.HasField(name):
            yield FieldViolation(f"job.{name}", "is named by update_mask and not set; a deadline cannot be removed")


def _known() -> str:
    return ", ".join(_APPLY)


def _set_deadline(change: Change, job: job_pb2.Job) -> None:
    change.complete_by_time.CopyFrom(deadline_of(job, time.time_ns()))


def _set_class(change: Change, job: job_pb2.Job) -> None:
    change.service_class = job.service_class or job_pb2.SERVICE_CLASS_STANDARD


def _set_policy(change: Change, job: job_pb2.Job) -> None:
    change.on_deadline = job.on_deadline or job_pb2.DEADLINE_POLICY_RUN_LATE


def _set_escalation(change: Change, job: job_pb2.Job) -> None:
    change.escalation.CopyFrom(job.escalation)


def _set_acceptance(change: Change, job: job_pb2.Job) -> None:
    change.accept_at_risk = job.accept_at_risk


_APPLY: dict[str, Callable[[Change, job_pb2.Job], None]] = {
    "complete_by_time": _set_deadline,
    "completion_window": _set_deadline,
    "service_class": _set_class,
    "on_deadline": _set_policy,
    "escalation": _set_escalation,
    "accept_at_risk": _set_acceptance,
}

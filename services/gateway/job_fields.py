"""What a client may ask of a new job."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain

from google.protobuf import duration_pb2, timestamp_pb2

from services.gateway.limits import (
    DEFAULT_WINDOW,
    MAX_LABEL_KEY_BYTES,
    MAX_LABEL_VALUE_BYTES,
    MAX_LABELS,
    MAX_ORIGIN_RUN_ID_BYTES,
    MAX_REQUEST_ID_BYTES,
    MAX_WINDOW,
    MIN_WINDOW,
)
from services.gateway.sampling_fields import check_sampling
from services.gateway.sampling_together import Effective, check_together
from services.gateway.tasks import GENERATION, task_words
from services.gateway.unknown_fields import has_unknown_fields, unknown_fields
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2

_DATASET = re.compile(r"[A-Za-z0-9._-]{1,128}")
_INPUTS = frozenset(
    {"model", "sampling", "complete_by_time", "completion_window", "execution_mode", "dataset", "labels"}
    | {"origin_run_id", "service_class", "on_deadline", "escalation", "accept_at_risk"}
)
_NANOSECONDS = 1_000_000_000


def check_create(request: job_service_pb2.CreateJobRequest) -> None:
    """Raise UNSUPPORTED_PARAMETER or INVALID_ARGUMENT, naming every offending field."""
    if has_unknown_fields(request):
        raise unknown_fields()
    job = request.job
    if outputs := [field.name for field, _ in job.ListFields() if field.name not in _INPUTS]:
        raise TidemillError(
            Reason.UNSUPPORTED_PARAMETER,
            f"the service sets {', '.join(outputs)}; leave them out of a new job",
            violations=[FieldViolation(f"job.{name}", "set by the service") for name in outputs],
        )
    raise_violations([*check_request_id(request.request_id), *_check_job(job)], list(check_deadline(job, "job.")))


def raise_violations(violations: Sequence[FieldViolation], deadline: Sequence[FieldViolation] = ()) -> None:
    """Raise INVALID_ARGUMENT naming all of them; DEADLINE_OUT_OF_RANGE when nothing but the `deadline` is wrong."""
    if found := [*violations, *deadline]:
        raise TidemillError(
            Reason.INVALID_ARGUMENT if violations else Reason.DEADLINE_OUT_OF_RANGE,
            "; ".join(f"{item.field}: {item.description}" for item in found),
            violations=found,
        )


def check_job_sampling(
    job: job_pb2.Job,
    max_model_len: int,
    tasks: "frozenset[model_service_pb2.Task.ValueType]" = GENERATION,
) -> None:
    """Raise INVALID_ARGUMENT when the sampling defaults are out of range for the model, or are not for its tasks."""
    found = list(check_sampling(job.sampling, max_model_len))
    if model_service_pb2.TASK_GENERATE not in tasks:
        found += [
            FieldViolation(
                f"sampling.{item.name}", f"{item.name} is for models that generate; this one can {task_words(tasks)}"
            )
            for item, _ in job.sampling.ListFields()
        ]
    if found:
        violations = [FieldViolation(f"job.{item.field}", item.description) for item in found]
        raise TidemillError(
            Reason.INVALID_ARGUMENT, "; ".join(item.description for item in violations), violations=violations
        )


def deadline_of(job: job_pb2.Job, now_ns: int) -> timestamp_pb2.Timestamp:
    """When the job's answers are needed: as given, or a window from now."""
    deadline = timestamp_pb2.Timestamp()
    if job.HasField("complete_by_time"):
        deadline.CopyFrom(job.complete_by_time)
    elif job.HasField("completion_window"):
        deadline.FromNanoseconds(now_ns + job.completion_window.seconds * _NANOSECONDS + job.completion_window.nanos)
    else:
        deadline.FromNanoseconds(now_ns + _nanoseconds(DEFAULT_WINDOW))
    return deadline


def _check_job(job: job_pb2.Job) -> Iterator[FieldViolation]:
    if not job.model:
        yield FieldViolation("job.model", "a model is required; ListModels prints the available ones")
    if job.HasField("complete_by_time") and job.HasField("completion_window"):
        yield FieldViolation("job.completion_window", "set complete_by_time or completion_window, not both")
    yield from check_terms(job)
    if job.execution_mode not in job_pb2.ExecutionMode.values():
        yield FieldViolation("job.execution_mode", f"mode {job.execution_mode} is unknown; use SHARED or DEDICATED")
    if job.dataset and not _DATASET.fullmatch(job.dataset):
        yield FieldViolation("job.dataset", "a dataset is named by 1 to 128 characters of [A-Za-z0-9._-]")
    if _size(job.origin_run_id) > MAX_ORIGIN_RUN_ID_BYTES:
        yield FieldViolation(
            "job.origin_run_id",
            f"has {_size(job.origin_run_id)} bytes; at most {MAX_ORIGIN_RUN_ID_BYTES} are allowed",
        )
    yield from check_labels(job.labels, "job.labels")
    # What a default lacks a row may set, so only values that are there are compared.
    for item in chain(check_sampling(job.sampling, 0), check_together(Effective(None, job.sampling), 0)):
        yield FieldViolation(f"job.{item.field}", item.description)


def check_request_id(request_id: str) -> Iterator[FieldViolation]:
    """What is wrong with an idempotency key."""
    if _size(request_id) > MAX_REQUEST_ID_BYTES:
        yield FieldViolation("request_id", f"has {_size(request_id)} bytes; at most {MAX_REQUEST_ID_BYTES} are allowed")


def check_terms(job: job_pb2.Job) -> Iterator[FieldViolation]:
    """Values of class and deadline policy that this build does not know."""
    if job.service_class not in job_pb2.ServiceClass.values():
        yield FieldViolation("job.service_class", f"class {job.service_class} is unknown; use URGENT, STANDARD or FLEX")
    if job.on_deadline not in job_pb2.DeadlinePolicy.values():
        yield FieldViolation("job.on_deadline", f"policy {job.on_deadline} is unknown; use RUN_LATE or EXPIRE")


def check_deadline(job: job_pb2.Job, prefix: str) -> Iterator[FieldViolation]:
    """Whether the deadline lies in range, as a time or as a window from now; fields are named below `prefix`."""
    if job.HasField("complete_by_time"):
        moment = job.complete_by_time
        left = moment.seconds * _NANOSECONDS + moment.nanos - time.time_ns()
        yield from _check_window(f"{prefix}complete_by_time", left, moment.nanos)
    if job.HasField("completion_window"):
        yield from check_window(job.completion_window, prefix)


def check_window(window: duration_pb2.Duration, prefix: str = "") -> Iterator[FieldViolation]:
    """Whether a window is from one minute to thirty days."""
    yield from _check_window(f"{prefix}completion_window", window.seconds * _NANOSECONDS + window.nanos, window.nanos)


def _check_window(field: str, window_ns: int, nanos: int) -> Iterator[FieldViolation]:
    in_range = _nanoseconds(MIN_WINDOW) <= window_ns <= _nanoseconds(MAX_WINDOW)
    if not in_range or not 0 <= nanos < _NANOSECONDS:
        seconds = window_ns / _NANOSECONDS
        where = f"passed {-seconds:.0f} s ago" if seconds < 0 else f"is {seconds:.0f} s away"
        yield FieldViolation(
            field, f"the deadline {where}; it must be one minute to thirty days from now: choose one in this range"
        )


def check_labels(labels: Mapping[str, str], field: str) -> Iterator[FieldViolation]:
    """What is wrong with labels, of a job or to look for."""
    if len(labels) > MAX_LABELS:
        yield FieldViolation(field, f"has {len(labels)} labels; at most {MAX_LABELS} are allowed")
        return
    for key, value in sorted(labels.items()):
        if not 1 <= _size(key) <= MAX_LABEL_KEY_BYTES:
            yield FieldViolation(field, f"key {key[:64]!r} must have 1 to {MAX_LABEL_KEY_BYTES} bytes")
        if _size(value) > MAX_LABEL_VALUE_BYTES:
            yield FieldViolation(
                f"{field}[{key[:64]}]", f"the value has {_size(value)} bytes; the limit is {MAX_LABEL_VALUE_BYTES}"
            )


def _nanoseconds(duration: timedelta) -> int:
    return int(duration.total_seconds()) * _NANOSECONDS


def _size(text: str) -> int:
    return len(text.encode())

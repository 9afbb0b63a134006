"""Refusals that several commands share."""

from services.scheduler.core.records import Job
from services.scheduler.core.state import State
from tidemill.digests import SHA256_BYTES
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.names import parse_job
from tidemill.v1 import job_pb2

MAX_KEY_BYTES = 1024
MAX_TEXT_BYTES = 512


def state_name(job: Job) -> str:
    """The job's state without its prefix, for messages."""
    return job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")


def invalid(field: str, description: str) -> TidemillError:
    """An INVALID_ARGUMENT about one field."""
    return TidemillError(
        Reason.INVALID_ARGUMENT, f"{field}: {description}", violations=[FieldViolation(field, description)]
    )


def require(holds: bool, field: str, description: str) -> None:
    """Raise INVALID_ARGUMENT about `field` unless `holds`."""
    if not holds:
        raise invalid(field, description)


def require_text(value: str, field: str) -> None:
    """Raise INVALID_ARGUMENT unless `value` is neither empty nor overlong."""
    require(0 < len(value.encode()) <= MAX_TEXT_BYTES, field, f"must have 1 to {MAX_TEXT_BYTES} bytes")


def require_sha256(value: bytes, field: str) -> None:
    """Raise INVALID_ARGUMENT unless `value` has the length of a SHA-256."""
    require(len(value) == SHA256_BYTES, field, f"must have {SHA256_BYTES} bytes, not {len(value)}")


def require_key(key: str, job: str, folder: str, field: str) -> None:
    """Raise INVALID_ARGUMENT unless `key` lies in `folder` of the job's own place in the object store."""
    prefix = f"{parse_job(job).prefix}/{folder}/"
    inside = key.startswith(prefix) and ".." not in key and len(key.encode()) <= MAX_KEY_BYTES
    require(inside, field, f"must lie below {prefix} and have at most {MAX_KEY_BYTES} bytes")


def find_job(state: State, name: str) -> Job:
    """The job, or JOB_NOT_FOUND: nobody sees a deleted one."""
    job = state.jobs.get(name)
    if job is None or job.deleted:
        parse_job(name)
        raise TidemillError(Reason.JOB_NOT_FOUND, f"job {name} does not exist", metadata={"job": name})
    return job


def find_receiving(state: State, name: str) -> Job:
    """The job, or JOB_NOT_RECEIVING when its rows are fixed or given up."""
    job = find_job(state, name)
    if not job.receiving:
        raise not_receiving(job)
    return job


def not_receiving(job: Job) -> TidemillError:
    """The refusal of rows for a job that takes none."""
    return TidemillError(
        Reason.JOB_NOT_RECEIVING,
        f"job {job.name} is {state_name(job)} and takes no more rows; create another job for them",
        metadata={"job": job.name, "state": state_name(job)},
    )

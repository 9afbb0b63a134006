"""Data versions, code versions and provenance: the only place that builds `dagster/*` tags."""

import dagster as dg

from tidemill.names import parse_job
from tidemill.v1 import job_pb2

PROMPTS = dg.AssetKey("prompts")
OUTPUTS = dg.AssetKey("outputs")

JOB_ID_TAG = "tidemill/job_id"
STATE_TAG = "tidemill/state"

_DATA_VERSION = "dagster/data_version"
_IS_USER_PROVIDED = "dagster/data_version_is_user_provided"
_CODE_VERSION = "dagster/code_version"
_INPUT_VERSION = f"dagster/input_data_version/{PROMPTS.to_user_string()}"
_INPUT_POINTER = f"dagster/input_event_pointer/{PROMPTS.to_user_string()}"


def job_id(job: job_pb2.Job) -> str:
    """The ULID in the job's name."""
    return parse_job(job.name).job_id


def state_name(job: job_pb2.Job) -> str:
    """The job's state without its prefix, such as `SUCCEEDED`."""
    return job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")


def code_version(job: job_pb2.Job) -> str:
    """What computed the output: the model, its weights and the engine."""
    return f"{job.model}@{job.model_digest}+{job.engine_build}"


def job_tags(job: job_pb2.Job) -> dict[str, str]:
    """Tags by which an event of this job is found again."""
    return {JOB_ID_TAG: job_id(job), STATE_TAG: state_name(job)}


def input_tags(job: job_pb2.Job) -> dict[str, str]:
    """Tags of an observation of the job's input."""
    return {JOB_ID_TAG: job_id(job), _DATA_VERSION: job.input_data_version, _IS_USER_PROVIDED: "true"}


def output_tags(job: job_pb2.Job, input_storage_id: int) -> dict[str, str]:
    """Tags of a materialisation of the job's output.

    Dagster judges whether an output is up to date only if the code version, the input's version and the storage id of
    the input's observation are all there.
    """
    return {
        **job_tags(job),
        _DATA_VERSION: job.output_data_version,
        _IS_USER_PROVIDED: "true",
        _CODE_VERSION: code_version(job),
        _INPUT_VERSION: job.input_data_version,
        _INPUT_POINTER: str(input_storage_id),
    }


def data_version(tags: dict[str, str]) -> str:
    """The data version among an event's tags; empty when there is none."""
    return tags.get(_DATA_VERSION, "")

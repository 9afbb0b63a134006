"""From one entry of the feed to one Dagster event."""

import dagster as dg

from dagster_defs.lib import metadata, versions
from dagster_defs.lib.partitions import partition_key
from tidemill.v1 import job_service_pb2


def input_observation(entry: job_service_pb2.Completion, trace_template: str) -> dg.AssetObservation:
    """The job's input was fixed. An observation and not a materialisation: only those mark outputs out of date."""
    return dg.AssetObservation(
        versions.PROMPTS,
        description=f"Rows of {entry.job.name}",
        partition=partition_key(entry.dataset),
        metadata=metadata.input_metadata(entry.job, trace_template),
        tags=versions.input_tags(entry.job),
    )


def output_materialization(
    entry: job_service_pb2.Completion, input_storage_id: int, trace_template: str
) -> dg.AssetMaterialization:
    """The job answered every row: a new version of the dataset."""
    return dg.AssetMaterialization(
        versions.OUTPUTS,
        description=f"Answers of {entry.job.name}",
        partition=partition_key(entry.dataset),
        metadata=metadata.output_metadata(entry.job, entry.sample_results, trace_template),
        tags=versions.output_tags(entry.job, input_storage_id),
    )


def partial_observation(entry: job_service_pb2.Completion, trace_template: str) -> dg.AssetObservation:
    """The job ended without answering every row.

    What it finished is kept and can be read, but it is no new version of the dataset: whoever takes the newest
    version would get fewer rows than were asked.
    """
    state = versions.state_name(entry.job)
    return dg.AssetObservation(
        versions.OUTPUTS,
        description=f"{entry.job.name} ended {state}; finished rows are kept, the dataset's version is unchanged",
        partition=partition_key(entry.dataset),
        metadata=metadata.output_metadata(entry.job, entry.sample_results, trace_template),
        tags=versions.job_tags(entry.job),
    )

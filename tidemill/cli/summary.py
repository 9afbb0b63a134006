"""How a finished job is reported: a line for people or an object for programs, and an exit status."""

import json
import sys

from tidemill.cli.console import note
from tidemill.cli.exit_codes import ExitCode
from tidemill.client.cursors import state_name
from tidemill.v1 import job_pb2


def report(job: job_pb2.Job, *, as_json: bool = False) -> ExitCode:
    """Say what became of the job on standard error; the exit status is 1 unless every row was answered."""
    counts = job.row_counts
    answered = job.state == job_pb2.JOB_STATE_SUCCEEDED and counts.succeeded == counts.total
    if as_json:
        print(json.dumps(_fields(job)), file=sys.stderr)
    elif job.state != job_pb2.JOB_STATE_SUCCEEDED:
        why = f": {job.error.message}" if job.error.message else ""
        note(f"the job ended {state_name(job)}{why}; {counts.succeeded} of {counts.total} rows were answered")
    elif not answered:
        note(f"{counts.failed} of {counts.total} rows failed; their lines in the results carry the error")
    return ExitCode.OK if answered else ExitCode.NOT_ALL_WELL


def _fields(job: job_pb2.Job) -> dict[str, object]:
    counts = job.row_counts
    return {
        "name": job.name,
        "state": state_name(job),
        "rows": counts.total,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "output_data_version": job.output_data_version,
    }

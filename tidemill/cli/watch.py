"""`tidemill watch`: the progress of a job that is running."""

import typer

from tidemill.cli.console import emit
from tidemill.cli.options import JobArgument, Json


def watch(job: JobArgument, as_json: Json = False) -> None:
    """Follow a job to its end. With --json each change is a line of JSON on standard output."""
    import json

    from tidemill.cli.jobs import job_fields
    from tidemill.cli.submit import follow
    from tidemill.cli.summary import report
    from tidemill.client import Client
    from tidemill.v1 import job_pb2

    with Client() as client:
        handle = client.job(job)
        if not as_json:
            raise typer.Exit(report(follow(handle)))
        last = job_pb2.Job()
        for last in handle.watch():
            emit(json.dumps(job_fields(last)))
        raise typer.Exit(report(last, as_json=True))

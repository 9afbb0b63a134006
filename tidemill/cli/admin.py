"""`tidemill admin`: the operator's tools, over the jobs of every tenant."""

from typing import Annotated

import typer

from tidemill.cli.options import JobArgument, Json
from tidemill.cli.verbs import print_job

app = typer.Typer(
    help="The operator's tools, over the jobs of every tenant. They need an admin key: `tidemill keys create --admin`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("requeue")
def requeue(
    job: JobArgument,
    row: Annotated[int, typer.Option(min=0, help="Index of any row of the chunk.")],
    as_json: Json = False,
) -> None:
    """Take a chunk from its worker and let it wait for another; its finished rows stay."""
    from tidemill.client import Client

    with Client() as client:
        print_job(client.admin.requeue_chunk(client.job(job).name, row), as_json=as_json)


@app.command("fail")
def fail(
    job: JobArgument,
    message: Annotated[str, typer.Option("--message", help="Why, for the owner: 1 to 500 bytes.")],
    as_json: Json = False,
) -> None:
    """End a job as FAILED, whatever it does now; its finished rows stay."""
    from tidemill.client import Client

    with Client() as client:
        print_job(client.admin.force_fail(client.job(job).name, message), as_json=as_json)

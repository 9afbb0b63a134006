"""`tidemill results`: the answers of a job, finished or running."""

from typing import Annotated

import typer

from tidemill.cli.options import JobArgument, Output


def results(
    job: JobArgument,
    output: Output = None,
    order: Annotated[str, typer.Option(help="input, or completion: as rows finish.")] = "input",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for the rows that are not done yet.")] = False,
    endpoint: Annotated[
        str, typer.Option(help="Shape of the answers: chat or completions. Default: as the input was.")
    ] = "",
) -> None:
    """Write a job's answers as OpenAI batch output; rows without one have an error."""
    from tidemill.cli.output import endpoint_of_job, result_stream, write_results
    from tidemill.client import Client
    from tidemill.client.requests import Endpoint
    from tidemill.errors import Reason, TidemillError

    shapes = {"chat": Endpoint.CHAT, "completions": Endpoint.COMPLETION}
    if endpoint and endpoint not in shapes:
        raise TidemillError(Reason.INVALID_ARGUMENT, f"--endpoint is chat or completions, not {endpoint!r}")
    if order not in ("input", "completion"):
        raise TidemillError(Reason.INVALID_ARGUMENT, f"--order is input or completion, not {order!r}")
    with result_stream(output) as stream, Client() as client:
        handle = client.job(job)
        snapshot = handle.get()
        shape = shapes[endpoint] if endpoint else endpoint_of_job(snapshot)
        answers = handle.results("input" if order == "input" else "completion", follow=follow)
        write_results(stream, answers, snapshot, lambda _: shape)

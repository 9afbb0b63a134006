"""`tidemill submit`: a file of requests in, a file of answers out."""

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.completion import complete_model
from tidemill.cli.console import emit, emit_json, note
from tidemill.cli.options import AcceptAtRisk, Escalate, Json, OnDeadline, Output, ServiceClass, terms_of

if TYPE_CHECKING:
    from tidemill.cli.progress import JobProgress
    from tidemill.cli.source import Source
    from tidemill.client import Client, JobHandle
    from tidemill.v1 import job_pb2, row_pb2


def submit(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help='OpenAI batch JSONL, or lines of {"prompt": ...}, {"messages": ...}, {"embed": ...}; - is stdin.',
        ),
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="As `tidemill models list` names it. Default: the one that the file names.",
            autocompletion=complete_model,
        ),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", "-d", help="When answers are needed: 90s, 30m, 2h, 1d. Default: 24h.")
    ] = None,
    output: Output = None,
    sampling: Annotated[
        list[str] | None,
        typer.Option("--sampling", "-s", metavar="KEY=VALUE", help="For all rows, such as max_tokens=64. Repeatable."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="Name of the output dataset in Dagster.")] = "",
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label of the job. Repeatable.")] = None,
    execution: Annotated[str, typer.Option(help="shared or dedicated. Default: the service chooses.")] = "",
    service_class: ServiceClass = "",
    on_deadline: OnDeadline = "",
    escalate: Escalate = None,
    accept_at_risk: AcceptAtRisk = False,
    request_id: Annotated[
        str, typer.Option(help="Makes the command repeatable: same id and file go on with the job that they began.")
    ] = "",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's name and end once it is queued.")] = False,
    as_json: Json = False,
) -> None:
    """Submit requests, show progress, and write the answers as OpenAI batch output in input order.

    A file is checked as a whole before anything is sent; standard input is sent as it comes.
    """
    from tidemill.cli.arguments import parse_pairs, parse_sampling
    from tidemill.cli.output import result_stream, write_results
    from tidemill.cli.source import open_source
    from tidemill.cli.summary import report
    from tidemill.client import Client

    labels, defaults = parse_pairs(label or [], "--label"), parse_sampling(sampling or [])
    source = open_source(file, model)
    with result_stream(None if no_wait else output) as stream, Client() as client:
        job = client.new_job(
            model=source.model,
            deadline=deadline,
            sampling=defaults or None,
            dataset=dataset,
            labels=labels | source.labels,
            execution=execution,
            **terms_of(service_class, on_deadline, escalate, accept_at_risk),
        )
        handle = send(client, job, source, request_id or uuid.uuid4().hex)
        if no_wait:
            emit_json({"name": handle.name}) if as_json else emit(handle.name)
            return
        finished = follow(handle)
        write_results(stream, handle.results(), finished, source.endpoint_of)
    raise typer.Exit(report(finished, as_json=as_json))


def send(client: "Client", job: "job_pb2.Job", source: "Source", request_id: str) -> "JobHandle":
    """Create the job, append the rows with progress, and seal it; says how to go on when it is interrupted."""
    from tidemill.cli.progress import JobProgress
    from tidemill.v1 import job_pb2

    handle, created = client.create(job, request_id=request_id)
    note(f"job {handle.name}")
    if created.state != job_pb2.JOB_STATE_RECEIVING:
        note("the job was submitted before; its rows are not sent again")
        # The rows' endpoints are still needed for the output.
        for _ in source.rows():
            pass
        return handle
    try:
        with JobProgress() as progress:
            count = client.append(handle, _counted(source, progress))
        client.seal(handle, count)
    except KeyboardInterrupt:
        _explain_interruption(handle, source, request_id)
        raise
    except Exception as exc:
        _give_up(handle, source, exc)
        raise
    return handle


def _counted(source: "Source", progress: "JobProgress") -> "Iterator[row_pb2.Row]":
    for number, row in enumerate(source.rows(), start=1):
        if number % 512 == 1:
            progress.show_sent(number, source.total)
        yield row


def _explain_interruption(handle: "JobHandle", source: "Source", request_id: str) -> None:
    if source.path is None:
        note(f"interrupted: {handle.name} is not sealed, nothing will run; `tidemill cancel {handle.name}` removes it")
        return
    note(
        f"interrupted: {handle.name} is not sealed yet. Go on with the same command and --request-id {request_id}, "
        f"or give it up: tidemill cancel {handle.name}"
    )


def _give_up(handle: "JobHandle", source: "Source", error: Exception) -> None:
    """Name the line behind a refused row, and cancel a job that cannot be completed."""
    from tidemill.client import Reason, RowsRefusedError, TidemillError
    from tidemill.client.jsonl import line_of_row

    if isinstance(error, RowsRefusedError) and error.row_errors and source.path is not None:
        line = line_of_row(source.path, error.row_errors[0].index)
        error.message = f"{source.path.name} line {line}: {error.message}"
    if isinstance(error, TidemillError) and error.reason is Reason.DEADLINE_INFEASIBLE:
        earliest = error.metadata.get("earliest_feasible_time", "unknown")
        error.message = (
            f"the deadline cannot be promised; the earliest that can is {earliest}: submit again with a later "
            "--deadline, or with --accept-at-risk"
        )
    if isinstance(error, TidemillError):
        try:
            handle.cancel()
            note(f"{handle.name} was cancelled: its rows could not all be sent")
        except TidemillError:
            note(f"{handle.name} is left unsealed and will expire within a day")


def follow(handle: "JobHandle") -> "job_pb2.Job":
    """The job once it has ended, with progress until then; Ctrl-C leaves it running and says how to come back."""
    from tidemill.cli.progress import JobProgress

    try:
        with JobProgress() as progress:
            return progress.follow(handle.watch())
    except KeyboardInterrupt:
        note(
            f"the job goes on without you. Follow it: tidemill watch {handle.name}; "
            f"its answers: tidemill results {handle.name}; stop it: tidemill cancel {handle.name}"
        )
        raise

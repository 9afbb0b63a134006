"""`tidemill estimate` and `explain`: when a job ends, and what it waits for."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.arguments import parse_sampling
from tidemill.cli.completion import complete_job, complete_model
from tidemill.cli.console import emit, emit_json
from tidemill.cli.options import JobArgument, Json, ServiceClass, terms_of
from tidemill.errors import Reason, TidemillError

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from tidemill.v1.job_service_pb2 import EstimateJobResponse

_TIMES = {
    "start": "start_time",
    "end, one in two": "eta_p50_time",
    "end, nine in ten": "eta_p90_time",
    "earliest deadline": "earliest_feasible_time",
}


def estimate(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]", help="A job that exists; without it, one is imagined.", autocompletion=complete_job
        ),
    ] = None,
    *,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model of the imagined job.", autocompletion=complete_model)
    ] = "",
    rows: Annotated[int, typer.Option(min=0, help="Its number of rows.")] = 0,
    prompt_tokens: Annotated[int, typer.Option(min=0, help="Mean tokens of a prompt. Default: 256.")] = 0,
    output_tokens: Annotated[
        int, typer.Option(min=0, help="Mean tokens of an answer. Default: what the model's jobs have taken.")
    ] = 0,
    deadline: Annotated[str | None, typer.Option("--deadline", "-d", help="90s, 30m, 2h, 1d. Default: 24h.")] = None,
    sampling: Annotated[
        list[str] | None, typer.Option("--sampling", "-s", metavar="KEY=VALUE", help="As in `submit`. Repeatable.")
    ] = None,
    service_class: ServiceClass = "",
    as_json: Json = False,
) -> None:
    """Say what a job would cost, when it would end and whether its deadline would hold."""
    from tidemill.client import Client

    if (model or rows) if job else not (model and rows):
        raise TidemillError(Reason.INVALID_ARGUMENT, "name a JOB, or imagine one with --model and --rows")
    with Client() as client:
        if job:
            found = client.job(job).estimate()
        else:
            found = client.estimate(
                rows,
                model=model,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                deadline=deadline,
                sampling=parse_sampling(sampling or []) or None,
                **terms_of(service_class, "", None, accept_at_risk=False),
            )
    _print_json(found) if as_json else _print_estimate(found)


def explain(job: JobArgument, as_json: Json = False) -> None:
    """Say what a job waits for and what would change it."""
    from tidemill.client import Client, state_name
    from tidemill.v1.job_service_pb2 import WaitCause

    with Client() as client:
        found = client.job(job).explain()
    if as_json:
        _print_json(found)
        return
    _line("state", state_name(found.job))
    if found.cause:
        _line("waits for", WaitCause.Name(found.cause).removeprefix("WAIT_CAUSE_").lower().replace("_", " "))
    _line("why", found.message)
    if found.jobs_ahead:
        _line("ahead of it", f"{found.jobs_ahead} jobs with {found.rows_ahead} rows")
    if found.chunks_cap:
        _line("chunks at workers", f"{found.chunks_leased} of at most {found.chunks_cap}")
    for remedy in found.remedies:
        _line("to change it", remedy)


def _print_estimate(found: "EstimateJobResponse") -> None:
    # Without an end there is nothing to judge the deadline by.
    known = found.HasField("eta_p90_time")
    _line("deadline holds", ("yes" if found.feasible else "no") if known else "cannot be told")
    moments = {field.name: value for field, value in found.ListFields()}
    for label, name in _TIMES.items():
        if name in moments:
            _line(label, _moment(moments[name]))
    _line("engine time", f"{found.engine_seconds:.1f} s")
    _line("basis", found.basis)


def _moment(moment: "Timestamp") -> str:
    from tidemill.client.durations import format_duration

    left = moment.ToNanoseconds() / 1e9 - time.time()
    return f"{moment.ToJsonString().partition('.')[0].rstrip('Z')}Z (in {format_duration(max(0.0, left))})"


def _line(label: str, value: str) -> None:
    emit(f"{label:<20} {value}")


def _print_json(message: "Message") -> None:
    from google.protobuf import json_format

    emit_json(json_format.MessageToDict(message, preserving_proto_field_name=True))

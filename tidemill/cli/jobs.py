"""`tidemill jobs`, `show` and `cancel`."""

import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.arguments import parse_pairs
from tidemill.cli.completion import complete_model
from tidemill.cli.console import emit, emit_json, emit_table
from tidemill.cli.exit_codes import ExitCode
from tidemill.cli.options import JobArgument, Json

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tidemill.v1 import job_pb2


def list_jobs(
    state: Annotated[
        list[str] | None, typer.Option(help="Only jobs in this state, such as running. Repeatable.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Only jobs for it.", autocompletion=complete_model)] = "",
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only jobs with this label. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from tidemill.client import Client

    labels = parse_pairs(label or [], "--label")
    with Client() as client:
        found = client.jobs(state or (), page_size=min(limit, 1000), model=model, labels=labels)
        jobs = list(islice(found, limit))
    if as_json:
        emit_json([job_fields(job) for job in jobs])
    else:
        emit_table(
            ("JOB", "STATE", "MODEL", "ROWS", "FAILED", "AGE", "DEADLINE", "OUTLOOK"), [_cells(job) for job in jobs]
        )


def show(
    job: JobArgument,
    row: Annotated[
        int | None, typer.Option(min=0, help="Show where the answer of this row comes from, digest by digest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show everything about one job, or about one of its rows; a row whose digests do not agree ends with 1."""
    from tidemill.client import Client

    with Client() as client:
        handle = client.job(job)
        message = handle.get() if row is None else handle.provenance(row)
    fields = message_fields(message)
    _show(fields, as_json=as_json)
    if fields.get("mismatches"):
        raise typer.Exit(ExitCode.NOT_ALL_WELL)


def _show(fields: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit_json(fields)
        return
    for key, value in _flat(fields):
        emit(f"{key:<24} {value}")


def cancel(job: JobArgument, as_json: Json = False) -> None:
    """Stop a job; its finished rows are kept."""
    from tidemill.client import Client, state_name

    with Client() as client:
        cancelled = client.job(job).cancel()
    emit_json(job_fields(cancelled)) if as_json else emit(f"{cancelled.name} {state_name(cancelled)}")


def job_fields(job: "job_pb2.Job") -> dict[str, Any]:
    """The job as JSON shows it, field names as in the proto."""
    return message_fields(job)


def message_fields(message: "Message") -> dict[str, Any]:
    """A message as JSON shows it, field names as in the proto."""
    from google.protobuf import json_format

    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _cells(job: "job_pb2.Job") -> tuple[str, ...]:
    from tidemill.cli.progress import finished_rows, sla_words
    from tidemill.client import is_terminal, state_name
    from tidemill.client.durations import format_duration

    counts, now = job.row_counts, time.time()
    left = job.complete_by_time.seconds - now
    if is_terminal(job) or not job.HasField("complete_by_time"):
        deadline = "-"
    else:
        deadline = f"in {format_duration(left)}" if left >= 0 else f"{format_duration(-left)} ago"
    return (
        job.name.rpartition("/")[2],
        state_name(job),
        job.model,
        f"{finished_rows(job)}/{counts.total}",
        str(counts.failed),
        format_duration(max(0.0, now - job.create_time.seconds)),
        deadline,
        "-" if is_terminal(job) else sla_words(job) or "-",
    )


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in fields.items():
        lines += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, str(value))]
    return lines

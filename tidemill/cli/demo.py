"""`tidemill demo`: the whole main job on this machine, from nothing to an asset in Dagster."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import emit, error, note
from tidemill.cli.exit_codes import ExitCode
from tidemill.cli.up import QWEN, AnyPort, Engine, Model, introduce, make_options, report

if TYPE_CHECKING:
    from tidemill.cli.source import Source
    from tidemill.up.embedded import Running
    from tidemill.v1 import job_pb2

_ROOT = Path(__file__).resolve().parents[2]
PROMPTS = _ROOT / "examples" / "prompts.jsonl"
_SHOWN = 3
_MATERIALIZATION_SECONDS = 120.0


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
    home: Annotated[
        Path | None, typer.Option(help="Folder of everything that is kept. Default: .tidemill here.")
    ] = None,
    model: Model = None,
    engine: Engine = "cpu",
    prompts: Annotated[Path, typer.Option(help="The requests to answer.")] = PROMPTS,
    any_port: AnyPort = False,
) -> None:
    """Answer the 200 example prompts with a generated model, show the answers, and find them in Dagster.

    The last line is `demo ok: ...` with the figures; anything else ends with an error and a non-zero status.
    """
    from tidemill.cli.source import open_source
    from tidemill.client.jsonl import check_file
    from tidemill.up.embedded import Interrupted, running

    started = time.monotonic()
    folder = home or _ROOT / ".tidemill"
    options = make_options(folder, model, engine, any_port=any_port)
    # A fault in the file shows before anything is started.
    check_file(prompts)
    try:
        with running(options, report, note) as service:
            source = open_source(str(prompts), service.chosen.models[0].id)
            finish = _run(service, source, folder / "demo-answers.jsonl")
            if keep:
                introduce(service)
                finish(time.monotonic() - started)
                note("running; Ctrl-C stops everything")
                service.supervisor.wait()
    except Interrupted as exc:
        if not keep:
            note("interrupted; everything is stopped")
            raise typer.Exit(128 + exc.number) from None
        return
    if not keep:
        finish(time.monotonic() - started)


def _run(service: "Running", source: "Source", answers: Path) -> Callable[[float], None]:
    """Do the main job; returns what prints the last line, which raises instead when something is missing."""
    from tidemill.cli.output import result_stream, write_results
    from tidemill.cli.submit import follow, send
    from tidemill.client import Client

    with Client(service.address, service.api_key) as client:
        job = client.new_job(
            model=source.model, deadline="2h", sampling={"max_tokens": 48}, dataset="demo", labels=source.labels
        )
        handle = send(client, job, source, "")
        finished = follow(handle)
        with result_stream(str(answers)) as stream:
            write_results(stream, handle.results(), finished, source.endpoint_of)
    _print_answers(source, answers)
    count = _count_materializations(service, finished)
    _print_pages(service, finished, answers)
    return lambda seconds: _conclude(finished, source.total or 0, count, seconds)


def _print_answers(source: "Source", answers: Path) -> None:
    lines = answers.read_text().splitlines()
    emit("")
    emit(f"{len(lines)} answers, the first {_SHOWN}:")
    for row, line in zip(source.rows(), lines[:_SHOWN], strict=False):
        result = json.loads(line)
        asked = row.prompt if row.HasField("prompt") else row.chat.messages[-1].content
        emit(f"  {result['custom_id']}: {_short(asked)}")
        emit(f"    -> {_short(_text(result))}")
    if source.model == "tiny":
        emit("The model `tiny` has random weights, so its answers are gibberish. With a real one:")
        emit(f"  tidemill demo --model {QWEN}")


def _text(result: dict[str, object]) -> str:
    match result:
        case {"response": {"body": {"choices": [{"message": {"content": str(text)}}]}}}:
            return text
        case {"response": {"body": {"choices": [{"text": str(text)}]}}}:
            return text
        case _:
            return f"(no answer: {result.get('error')})"


def _short(text: str, limit: int = 96) -> str:
    # Random bytes must not reach the terminal as control sequences.
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= limit else shown[:limit] + "..."


def _count_materializations(service: "Running", job: "job_pb2.Job") -> int:
    """How many materialisations of `outputs` Dagster shows for this job, once it shows any."""
    from tidemill.up.dagster import count_materializations

    if service.dagster is None:
        return 0
    note("waiting for Dagster to show the materialisation")
    end = time.monotonic() + _MATERIALIZATION_SECONDS
    while True:
        count = count_materializations(service.dagster, job)
        if count or time.monotonic() > end:
            return count
        time.sleep(0.25)


def _print_pages(service: "Running", job: "job_pb2.Job", answers: Path) -> None:
    from tidemill.up.dagster import partition_page

    emit("")
    emit(f"answers      {answers}")
    emit(f"job          {job.name}")
    emit(f"metrics      http://{service.chosen.address('gateway-http')}/metrics")
    if service.dagster:
        emit(f"Dagster      {partition_page(service.dagster, job)}")
        emit(f"lineage      http://{service.dagster}/asset-groups")
    emit(f"traces       {service.chosen.home.root / 'telemetry'} (trace {job.trace_id})")


def _conclude(job: "job_pb2.Job", rows: int, materializations: int, seconds: float) -> None:
    from tidemill.client import state_name

    counts = job.row_counts
    figures = (
        f"rows={counts.total} succeeded={counts.succeeded} failed={counts.failed} "
        f"materializations={materializations} seconds={seconds:.1f}"
    )
    well = state_name(job) == "SUCCEEDED" and counts.total == counts.succeeded == rows and materializations == 1
    if not well:
        error(f"demo failed: state={state_name(job)} expected_rows={rows} {figures}")
        raise typer.Exit(ExitCode.NOT_ALL_WELL)
    emit(f"demo ok: {figures}")

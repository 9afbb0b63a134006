"""`tidemill up`: all processes of Tidemill on this machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import emit, note

if TYPE_CHECKING:
    from tidemill.up.embedded import Running, UpOptions
    from tidemill.up.spec import Event

QWEN = "Qwen/Qwen2.5-0.5B-Instruct"

Model = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME_OR_PATH",
        help="Folder or hub name, or ID=NAME_OR_PATH. Default: a tiny one. Repeatable.",
    ),
]
Engine = Annotated[str, typer.Option(envvar="ENGINE", help="cpu or gpu.")]
Home = Annotated[Path | None, typer.Option(help="Folder of everything that is kept. Default: TIDEMILL_HOME.")]
NoDagster = Annotated[bool, typer.Option("--no-dagster", help="Leave out Dagster's webserver and daemon.")]
AnyPort = Annotated[bool, typer.Option("--any-port", help="Take ports that the system chooses, not the default ones.")]


def up(
    model: Model = None,
    engine: Engine = "cpu",
    home: Home = None,
    no_dagster: NoDagster = False,
    any_port: AnyPort = False,
) -> None:
    """Start scheduler, gateway, inference and Dagster on loopback, and stop all of them on Ctrl-C.

    A port that is taken is replaced by the next free one. Nothing is left running, even if this process is killed.
    """
    from tidemill.client.settings import home_folder
    from tidemill.up.embedded import Interrupted, running

    options = make_options(home or home_folder(), model, engine, dagster=not no_dagster, any_port=any_port)
    try:
        with running(options, report, note) as service:
            introduce(service)
            note("running; Ctrl-C stops everything")
            service.supervisor.wait()
    except Interrupted:
        note("everything is stopped")


def make_options(
    home: Path, models: list[str] | None, engine: str, *, dagster: bool = True, any_port: bool = False
) -> "UpOptions":
    """Checked options of the embedded set."""
    from tidemill.errors import Reason, TidemillError
    from tidemill.up.embedded import UpOptions
    from tidemill.up.environment import dropped

    if engine not in ("cpu", "gpu"):
        raise TidemillError(Reason.INVALID_ARGUMENT, f"--engine is cpu or gpu, not {engine!r}")
    if ignored := dropped():
        note(f"ignoring {', '.join(ignored)} from the environment: `tidemill up` uses its own Ray and Dagster")
    return UpOptions(home.expanduser(), tuple(models or ()), engine, dagster, any_port)


def report(event: "Event") -> None:
    """An event of a process as a line."""
    from tidemill.client.durations import format_duration

    colon = ":" if event.kind == "waiting" else ""
    text = f"{colon} {event.text}" if event.text else ""
    took = f" ({format_duration(event.seconds)})" if event.kind in ("ready", "waiting") else ""
    note(f"{event.name:<18} {event.kind}{text}{took}")


def introduce(service: "Running") -> None:
    """Say where everything is and what to do next."""
    home, model = service.chosen.home.root, service.chosen.models[0].id
    emit(f"gateway      {service.address} (gRPC), http://{service.chosen.address('gateway-http')}/metrics")
    if service.dagster:
        emit(f"Dagster      http://{service.dagster}/assets/outputs")
    emit(f"API key      {service.api_key} (tenant dev; for development)")
    emit(f"logs         {service.chosen.home.logs}")
    emit("")
    emit("In another terminal:")
    if home != Path.home() / ".tidemill":
        emit(f"  export TIDEMILL_HOME={home}")
    emit(f"  tidemill submit examples/prompts.jsonl --model {model} --deadline 2h --output answers.jsonl")
    emit("  tidemill jobs")
    emit(f'  grpcurl -plaintext -H "authorization: Bearer {service.api_key}" {service.address} list')
    if service.chosen.models[0].id == "tiny":
        emit("The model `tiny` has random weights: its answers are gibberish. A real one:")
        emit(f"  tidemill up --model {QWEN}")
    sys.stdout.flush()

"""`tidemill ledger`: back up, restore and inspect the scheduler's ledger, on the machine where it can be reached."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.options import Json
from tidemill.errors import Reason, TidemillError

app = typer.Typer(
    help="Back up, restore and inspect the scheduler's ledger.", no_args_is_help=True, rich_markup_mode=None
)

_TOOL = "services.scheduler.ledger_tool"

Ledger = Annotated[
    str,
    typer.Option(help="The ledger as TIDEMILL_SCHEDULER_LEDGER has it. Default: that, or the one in TIDEMILL_HOME."),
]


@app.command("backup")
def backup(
    path: Annotated[Path, typer.Argument(help="The file to make; it must not exist.")],
    ledger: Ledger = "",
    as_json: Json = False,
) -> None:
    """Copy the ledger into one file, whether its scheduler runs or not, and read the copy whole.

    The object store is not in it: copy that afterwards.
    """
    _run("backup", str(path), ledger=ledger, as_json=as_json)


@app.command("restore")
def restore(
    path: Annotated[Path, typer.Argument(help="A backup.")],
    force: Annotated[
        bool, typer.Option("--force", help="Put a ledger that is there aside, under another name.")
    ] = False,
    ledger: Ledger = "",
    as_json: Json = False,
) -> None:
    """Put a backup in the ledger's place, while no scheduler uses it.

    What happened after the backup is lost. Leases given out then are void, and the ledger gets a new identity, so that
    readers of the completion feed begin anew.
    """
    _run("restore", str(path), *(["--force"] if force else []), ledger=ledger, as_json=as_json)


@app.command("inspect")
def inspect(
    job: Annotated[str, typer.Option("--job", help="Print the events of this job, one JSON object a line.")] = "",
    ledger: Ledger = "",
    as_json: Json = False,
) -> None:
    """Say what is in the ledger: identity, range, events by kind, jobs by state, damage. Exit status 1 on damage."""
    _run("inspect", *(["--job", job] if job else []), ledger=ledger, as_json=as_json)


def _run(*arguments: str, ledger: str, as_json: bool) -> None:
    """Run the scheduler's own tool: this package knows no ledger."""
    options = [*(["--ledger", ledger] if ledger else []), *(["--json"] if as_json else [])]
    command = tool_command(*arguments, *options)
    if command is None:
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            "the scheduler is not installed here, and only it can read a ledger: run this where it is",
        )
    done = subprocess.run(command, check=False)  # noqa: S603 - our own command
    raise typer.Exit(done.returncode)


def tool_command(*arguments: str) -> list[str] | None:
    """What runs the scheduler's own tool; None where the scheduler is not installed."""
    if importlib.util.find_spec("services") is None or importlib.util.find_spec("services.scheduler") is None:
        return None
    return [sys.executable, "-m", _TOOL, *arguments]

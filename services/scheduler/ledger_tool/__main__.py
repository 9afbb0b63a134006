"""The command line: `backup PATH`, `restore PATH`, `inspect`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.scheduler.ledger_tool import backup, inspection, restore
from services.scheduler.ledger_tool.sqlite_source import SqliteSource
from services.scheduler.settings import SQLITE, SchedulerSettings
from tidemill.config import CommonSettings
from tidemill.errors import Reason, TidemillError

OK, NOT_ALL_WELL, USAGE, REFUSED = range(4)
"""Exit statuses, as of the `tidemill` command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except TidemillError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return USAGE if error.reason in (Reason.INVALID_ARGUMENT, Reason.INVALID_FILE) else REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidemill ledger", description="Back up, restore and inspect the ledger.")
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument(
        "--ledger", default="", help="the ledger, as TIDEMILL_SCHEDULER_LEDGER has it, which is the default"
    )
    command = commands.add_parser("backup", parents=[common], help="copy the ledger into one new file")
    command.add_argument("path", type=Path)
    command.set_defaults(run=_back_up)
    command = commands.add_parser("restore", parents=[common], help="put a backup in the ledger's place")
    command.add_argument("path", type=Path)
    command.add_argument("--force", action="store_true", help="put an existing ledger aside")
    command.set_defaults(run=_restore)
    command = commands.add_parser("inspect", parents=[common], help="say what is in the ledger")
    command.add_argument("--job", default="", help="print the events of this job")
    command.set_defaults(run=_inspect)
    return parser


def _back_up(options: Any) -> int:
    source = SqliteSource(_sqlite_path(options.ledger))
    try:
        _report(backup.back_up(source, options.path), options.json)
    finally:
        source.close()
    return OK


def _restore(options: Any) -> int:
    _report(restore.restore(options.path, _sqlite_path(options.ledger), force=options.force), options.json)
    return OK


def _inspect(options: Any) -> int:
    source = SqliteSource(_sqlite_path(options.ledger))
    source.freeze()
    try:
        if options.job:
            for event in inspection.events_of(source, options.job):
                print(json.dumps(event, sort_keys=True))
            return OK
        found = inspection.look(source)
    finally:
        source.close()
    _report(found, options.json)
    return NOT_ALL_WELL if found["damaged"] or found["problem"] else OK


def _sqlite_path(ledger: str) -> Path:
    """The file that the setting names."""
    settings = SchedulerSettings(ledger=ledger) if ledger else SchedulerSettings()
    if not settings.ledger:
        return CommonSettings().home / "ledger.sqlite3"
    if not settings.ledger.startswith(SQLITE):
        raise TidemillError(Reason.INVALID_ARGUMENT, f"--ledger: this command works on `{SQLITE}PATH`")
    return Path(settings.ledger.removeprefix(SQLITE)).expanduser()


def _report(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, sort_keys=True))
        return
    width = max(len(name) for name in found)
    for name, value in found.items():
        for number, line in enumerate(_lines(value)):
            print(f"{'' if number else name:<{width}}  {line}")


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{name} {number}" for name, number in value.items()] or ["none"]
    if isinstance(value, list):
        return [str(item) for item in value] or ["none"]
    return [str(value) if value != "" else "none"]


if __name__ == "__main__":
    sys.exit(main())

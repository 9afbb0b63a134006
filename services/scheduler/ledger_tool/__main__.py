"""The command line: `backup PATH`, `restore PATH`, `inspect`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services.scheduler.ledger import redis_address
from services.scheduler.ledger.redis_address import RedisAddress
from services.scheduler.ledger_tool import backup, inspection, restore
from services.scheduler.ledger_tool.redis_source import RedisSource
from services.scheduler.ledger_tool.source import Source
from services.scheduler.ledger_tool.sqlite_source import SqliteSource
from services.scheduler.settings import REDIS, SQLITE, SchedulerSettings
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
    source = _source(options.ledger)
    try:
        _report(backup.back_up(source, options.path), options.json)
    finally:
        source.close()
    return OK


def _restore(options: Any) -> int:
    settings = _settings(options.ledger)
    if settings.ledger.startswith(REDIS):
        done = restore.restore_redis(
            options.path,
            _address(settings),
            force=options.force,
            vouched=settings.ledger_vouched,
            term_seconds=settings.term_seconds,
        )
    else:
        done = restore.restore(options.path, _file(settings), force=options.force)
    _report(done, options.json)
    return OK


def _inspect(options: Any) -> int:
    source = _source(options.ledger)
    try:
        if isinstance(source, SqliteSource):
            source.freeze()
        if options.job:
            for event in inspection.events_of(source, options.job):
                print(json.dumps(event, sort_keys=True))
            return OK
        found = inspection.look(source)
    finally:
        source.close()
    _report(found, options.json)
    return NOT_ALL_WELL if found["damaged"] or found["problem"] else OK


def _settings(ledger: str) -> SchedulerSettings:
    try:
        return SchedulerSettings(ledger=ledger) if ledger else SchedulerSettings()
    except ValidationError as exc:
        why = "; ".join(str(error["msg"]) for error in exc.errors(include_input=False))
        raise TidemillError(Reason.INVALID_ARGUMENT, f"--ledger, or the settings: {why}") from None


def _source(ledger: str) -> Source:
    settings = _settings(ledger)
    return RedisSource(_address(settings)) if settings.ledger.startswith(REDIS) else SqliteSource(_file(settings))


def _address(settings: SchedulerSettings) -> RedisAddress:
    return redis_address.parse(settings.ledger, settings.ledger_password.get_secret_value())


def _file(settings: SchedulerSettings) -> Path:
    if not settings.ledger:
        return CommonSettings().home / "ledger.sqlite3"
    if not settings.ledger.startswith(SQLITE):
        raise TidemillError(Reason.INVALID_ARGUMENT, "a ledger in memory ends with its scheduler: there is no file")
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

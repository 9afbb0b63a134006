"""Starts Dagster's webserver or daemon on this project: `python -m dagster_defs webserver|daemon --home DIR`.

The process becomes the one it starts, so whoever started it holds Dagster's own process id.
"""

import argparse
import fcntl
import os
import shutil
import sys
from pathlib import Path

from tidemill.config import CommonSettings

_LOCATION = ["-m", "dagster_defs.definitions"]
_INSTANCE = Path(__file__).parent / "instance" / "dagster.local.yaml"


def main(arguments: list[str]) -> None:
    """Parse, prepare the home folder, become Dagster. Does not return."""
    options = _parser().parse_args(arguments)
    home = prepare_home(options.home or CommonSettings().home / "dagster", options.instance)
    create_storage(home)
    command = _webserver(options.host, options.port) if options.process == "webserver" else _daemon()
    os.execve(sys.executable, [sys.executable, "-m", *command], environment(home))  # noqa: S606 - no shell wanted


def prepare_home(home: Path, instance: Path) -> Path:
    """Make `home` with `instance` as its dagster.yaml and return its absolute path, which is what Dagster wants."""
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    copy = home / f".dagster.yaml.{os.getpid()}"
    shutil.copyfile(instance, copy)
    copy.replace(home / "dagster.yaml")
    return home


def create_storage(home: Path) -> None:
    """Create the instance's tables, once, by one process.

    Dagster creates them lazily, and a webserver and a daemon that start together on an empty folder then fail over each
    other's half-made tables.
    """
    done = home / ".storage-created"
    with (home / ".storage-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _touch_storages(home)
            done.touch()


def _touch_storages(home: Path) -> None:
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs_count()
        instance.get_asset_keys()
        instance.all_instigator_state()


def environment(home: Path) -> dict[str, str]:
    """This process's environment with Dagster's home in it; an inherited one is somebody else's."""
    return {**os.environ, "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}


def _webserver(host: str, port: int) -> list[str]:
    return ["dagster_webserver", "--host", host, "--port", str(port), *_LOCATION]


def _daemon() -> list[str]:
    return ["dagster._daemon", "run", *_LOCATION]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dagster_defs", description="Start Dagster on Tidemill's assets.")
    parser.add_argument("process", choices=["webserver", "daemon"])
    parser.add_argument("--home", type=Path, help="Dagster's folder; default <TIDEMILL_HOME>/dagster")
    parser.add_argument("--instance", type=Path, default=_INSTANCE, help="dagster.yaml to use; default: SQLite")
    parser.add_argument("--host", default="127.0.0.1", help="where the webserver listens; it asks for no password")
    parser.add_argument("--port", type=int, default=3000)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])

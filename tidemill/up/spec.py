"""What the supervisor knows about a process, and what it tells about it."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

Check = Callable[[], str | None]
"""Returns None when a process is ready, else what it waits for, in a few words."""


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the set.

    Attributes:
        name: such as `scheduler`; also names its log.
        command: program and arguments.
        env: its whole environment.
        log: standard output and error are appended here.
        check: whether it is ready; called until it is.
        stop_group: processes with a lower number are stopped first, those with the same together.
        needs: names of processes that must be ready before this one is started.
        grace: seconds between SIGTERM and SIGKILL.
        ready_file: removed before each start.
        address, http_address: where it listens, `host:port`, for people and for `up.json`.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    check: Check
    stop_group: int
    needs: tuple[str, ...] = ()
    grace: float = 15.0
    ready_file: Path | None = None
    address: str | None = None
    http_address: str | None = None


class EventKind(StrEnum):
    """What happened to a process."""

    STARTING = "starting"
    WAITING = "waiting"
    READY = "ready"
    EXITED = "exited"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Event:
    """One event of one process: `text` is for people, `seconds` the time it took where that makes sense."""

    name: str
    kind: EventKind
    text: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Timing:
    """Seconds that govern restarts; tests shorten them.

    Attributes:
        tick: between two looks at the processes.
        first_pause, longest_pause: before a restart, doubling in between.
        waiting: between two reports that a process is not ready yet.
        healthy: a process that ran for so long starts again with the first pause.
        start_attempts: a process that dies so often before it was ever ready has failed.
    """

    tick: float = 0.1
    first_pause: float = 1.0
    longest_pause: float = 30.0
    waiting: float = 10.0
    healthy: float = 60.0
    start_attempts: int = 3


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs `module` in this interpreter."""
    return (sys.executable, "-m", module, *arguments)

"""No process outlives the inference service.

Ray's workers and vLLM's engine processes inherit an environment variable that names their owner. Whoever carries it
while the owner is dead, or is no descendant of the living owner, is an orphan. They are killed by a guard process the
moment the owner dies, and again at the next start. Only the standard library is imported: the guard stays small.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "VARIABLE",
    "Guard",
    "Marked",
    "Owner",
    "claim",
    "guard_strays",
    "marked",
    "orphans_of",
    "reap",
    "remove_folder",
    "sweep",
]

VARIABLE = "TIDEMILL_INFERENCE_OWNER"
_PROC = Path("/proc")
_OWNER_FILE = "owner"
_GUARD_SECONDS = 30.0
_GUARDS: list["Guard"] = []


@dataclass(frozen=True)
class Owner:
    """A process that owns others: the home it works for, its pid and when it started (kernel ticks)."""

    home: str
    pid: int
    started: int

    def encode(self) -> str:
        """Value of the variable."""
        return f"{self.home}:{self.pid}:{self.started}"

    @property
    def alive(self) -> bool:
        """Whether it still runs; a process that got its pid later does not count."""
        return _started(self.pid) == self.started


@dataclass(frozen=True)
class Marked:
    """A process with the mark of an owner."""

    pid: int
    started: int
    owner: Owner


def claim(home: Path) -> Owner:
    """Mark all processes started from here on as this process's."""
    owner = Owner(_home_id(home), os.getpid(), _started(os.getpid()) or 0)
    os.environ[VARIABLE] = owner.encode()
    # Programs that set their title overwrite the environment that /proc shows unless told not to.
    os.environ["SPT_NOENV"] = "1"
    return owner


def marked(home: Path) -> list[Marked]:
    """Processes that any inference service of this home started."""
    return list(_marked(_home_id(home)))


def orphans_of(home: Path) -> list[Marked]:
    """Those among them whose owner is gone, or that left their living owner's family."""
    return _orphans(_home_id(home))


def reap(home: Path, patience_seconds: float = 10.0) -> int:
    """Kill the orphans of this home and wait until they are gone; returns how many there were."""
    return _reap(_home_id(home), patience_seconds)


def remove_folder(folder: Path, patience_seconds: float = 5.0) -> None:
    """Remove the folder of processes that are ending: one of them may still write into it."""
    deadline = time.monotonic() + patience_seconds
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def sweep(folders: Path, pattern: str) -> None:
    """Remove our own folders whose owner is gone, where not even the guard was left to do it."""
    for folder in folders.glob(pattern):
        with contextlib.suppress(OSError, ValueError):
            home, pid, started = (folder / _OWNER_FILE).read_text().split(":")
            if folder.stat().st_uid == os.getuid() and not Owner(home, int(pid), int(started)).alive:
                remove_folder(folder)


class Guard:
    """A process that reaps what is left as soon as this one ends, however it ends, and removes its `folder`."""

    def __init__(self, owner: Owner, folder: Path) -> None:
        if folder.is_dir():
            (folder / _OWNER_FILE).write_text(owner.encode())
        environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-S", str(Path(__file__)), owner.home, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    def close(self) -> None:
        """Let it look a last time and end."""
        if self._process.stdin:
            self._process.stdin.close()
        # It goes on alone with what the kernel does not let go of; how this process ends must not depend on that.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_GUARD_SECONDS)


def guard_strays() -> None:
    """Where no service's mark came down to this process (Ray was started by others), own what it starts: should it be
    killed, a guard beside it ends its engine's processes."""
    if VARIABLE not in os.environ:
        nowhere = Path(f"/nonexistent/{os.getpid()}-{_started(os.getpid())}")
        _GUARDS.append(Guard(claim(nowhere), nowhere))


def _home_id(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:16]


def _orphans(home: str) -> list[Marked]:
    parents = dict(_parents())
    return [item for item in _marked(home) if not (item.owner.alive and _descends(item.pid, item.owner.pid, parents))]


def _reap(home: str, patience_seconds: float) -> int:
    seen: set[int] = set()
    deadline = time.monotonic() + patience_seconds
    while found := _orphans(home):
        seen |= {item.pid for item in found}
        for item in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(item.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(item.pid for item in found)} do not end")
        time.sleep(0.05)
    return len(seen)


def _marked(home: str) -> Iterator[Marked]:
    prefix = f"{VARIABLE}={home}:".encode()
    for pid in _pids():
        try:
            variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        started = _started(pid)
        value = next((item for item in variables if item.startswith(prefix)), None)
        if value and started:
            _, owner_pid, owner_started = value.decode().partition("=")[2].split(":")
            yield Marked(pid, started, Owner(home, int(owner_pid), int(owner_started)))


def _parents() -> Iterator[tuple[int, int]]:
    for pid in _pids():
        fields = _stat(pid)
        if fields:
            yield pid, int(fields[1])


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid > 0:
        if pid == ancestor:
            return True
        pid = parents.get(pid, 0)
    return False


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())


def _started(pid: int) -> int | None:
    """Start time in ticks; None for no process, or one that has ended and only waits to be collected."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name in front may hold spaces and brackets."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _guard(home: str, folder: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The pipe ends when the owner does.
    sys.stdin.buffer.read()
    _reap(home, 30.0)
    remove_folder(Path(folder))


if __name__ == "__main__":
    _guard(sys.argv[1], sys.argv[2])

"""Processes that a benchmark starts on a core of their own, and takes down whatever happens."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 240.0
STOP_SECONDS = 30.0


def cores() -> tuple[int, int]:
    """The core of the server and the core of everything else; the same one where the machine has no second."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@contextlib.contextmanager
def running(
    command: Sequence[str], core: int, log: Path, environment: Mapping[str, str] | None = None
) -> "Generator[subprocess.Popen[bytes]]":
    """`command` on `core`, its output in `log`; it gets SIGTERM at the end, and SIGKILL if this process dies."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - commands of our own
            _settled(command, core), cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(command: Sequence[str], core: int, seconds: float, environment: Mapping[str, str] | None = None) -> str:
    """Last line that `command` prints on `core`; ends this program with its errors when it fails."""
    finished = subprocess.run(  # noqa: S603 - commands of our own
        _settled(command, core),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{finished.stderr[-3000:]}")
    return finished.stdout.splitlines()[-1]


def _settled(command: Sequence[str], core: int) -> list[str]:
    """`command` on `core`, to die with this process; not by preexec_fn, which is unsafe beside gRPC's threads."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", str(core), *command]


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return once `condition` holds; ends this program when the process ends first or takes too long."""
    end = time.monotonic() + START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"a process did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.02)


@contextlib.contextmanager
def scheduler(home: Path, core: int, ledger: str, **settings: object) -> Generator[tuple[str, str]]:
    """A real scheduler over `ledger`: its gRPC address and that of its metrics."""
    with service("scheduler", home, core, ledger=ledger, **settings) as started:
        yield started.address, started.http_address


@dataclass(frozen=True)
class Service:
    """A service that is ready, and its process."""

    address: str
    http_address: str
    pid: int


@contextlib.contextmanager
def service(name: str, home: Path, core: int, **settings: object) -> Generator[Service]:
    """A real gateway or scheduler on free ports, with these settings."""
    home.mkdir(parents=True, exist_ok=True)
    ready_file, log = home / f"{name}.ready.json", home / f"{name}.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "OTEL_"))}
    prefix = f"TIDEMILL_{name.upper()}_"
    environment = inherited | {
        "TIDEMILL_HOME": str(home),
        "TIDEMILL_READY_FILE": str(ready_file),
        f"{prefix}ADDRESS": "127.0.0.1:0",
        f"{prefix}HTTP_ADDRESS": "127.0.0.1:0",
        **{f"{prefix}{key.upper()}": str(value) for key, value in settings.items()},
    }
    with running([sys.executable, "-m", f"services.{name}"], core, log, environment) as process:
        wait_until(ready_file.exists, process, log)
        ready = json.loads(ready_file.read_text())
        yield Service(ready["address"], ready["http_address"], process.pid)


@contextlib.contextmanager
def redis(folder: Path, core: int) -> Generator[int]:
    """A real redis-server that syncs each write before it answers; its port on loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    if not shutil.which("redis-server"):
        raise SystemExit("redis-server is not installed; run: make redis (or: sudo apt-get install redis-server)")
    port, log = _free_port(), folder / "redis.log"
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
    command += ["--maxmemory", "1gb"]
    with running(command, core, log) as process:
        wait_until(partial(_answers, port), process, log)
        yield port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False

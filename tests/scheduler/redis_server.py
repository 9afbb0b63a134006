"""A real redis-server of a test's own: on a free loopback port, its append-only file in a folder of the test."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_SECONDS = 30
SAFE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


class RedisServer:
    """`redis-server` with the settings that a ledger demands, unless told otherwise."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """`settings` by Redis's names, with `_` for `-`."""
        self.port = _free_port()
        self._folder = folder
        changed = {name.replace("_", "-"): value for name, value in settings.items()}
        self._settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "dir": str(folder),
            **SAFE,
            **changed,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, name: str = "default") -> str:
        """The setting of a scheduler that keeps its ledger here."""
        return f"redis://127.0.0.1:{self.port}?name={name}"

    def client(self) -> Any:
        """A connection of the test's own."""
        return redis.Redis(port=self.port, socket_timeout=10, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        """Start, on the same port and files as before, and wait until it answers."""
        executable = shutil.which("redis-server")
        assert executable, "redis-server is not installed; run: make redis (or: sudo apt-get install redis-server)"
        self._folder.mkdir(parents=True, exist_ok=True)
        arguments = [item for name, value in self._settings.items() for item in (f"--{name}", value)]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([executable, *arguments], stdout=log, stderr=subprocess.STDOUT)
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.AuthenticationError:
                    return
                except (redis.ConnectionError, redis.TimeoutError):
                    assert self._process is not None
                    assert self._process.poll() is None, (self._folder / "redis.log").read_text()[-2000:]
                    assert time.monotonic() < end, "redis-server does not answer"
                    time.sleep(0.01)
                else:
                    return

    def freeze(self) -> None:
        """Let it stand still, with its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(START_SECONDS)
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

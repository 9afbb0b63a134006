"""The real processes of Tidemill on free loopback ports, to start, kill, freeze and restart in tests."""

import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tidemill.keys import create_key

ROOT = Path(__file__).resolve().parents[2]
PEPPER = "system-test-pepper"
STARTUP_SECONDS = 240.0

_Value = TypeVar("_Value")


def wait_for(condition: Callable[[], _Value | None], seconds: float, what: str) -> _Value:
    """The first value of `condition` that is true; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.05)


def is_loopback(host: str) -> bool:
    """Whether a bound address is unreachable from other machines; `::ffff:127.0.0.1` is."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@dataclass
class Stack:
    """One home folder and the processes that work on it.

    Attributes:
        home: `TIDEMILL_HOME` of all of them; also how their descendants are found.
        settings: further environment variables of every process.
    """

    home: Path
    settings: dict[str, str] = field(default_factory=dict[str, str])
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict[str, "subprocess.Popen[bytes]"])
    ready: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.key = create_key(self.home / "keys.json", PEPPER, "dev")

    def environment(self) -> dict[str, str]:
        """What every process gets; addresses of processes started earlier are fixed."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "DAGSTER_"))}
        store = (self.home / "store").as_uri()
        ports = {
            "TIDEMILL_SCHEDULER_ADDRESS": self.address_of("scheduler"),
            "TIDEMILL_GATEWAY_ADDRESS": self.address_of("gateway"),
            "TIDEMILL_GATEWAY_SCHEDULER": self.address_of("scheduler"),
            "TIDEMILL_INFERENCE_SCHEDULER": self.address_of("scheduler"),
        }
        http = {f"TIDEMILL_{name}_HTTP_ADDRESS": "127.0.0.1:0" for name in ("SCHEDULER", "GATEWAY", "INFERENCE")}
        stores = {f"TIDEMILL_{name}_STORE": store for name in ("GATEWAY", "INFERENCE")}
        secrets = {"TIDEMILL_GATEWAY_KEYS_FILE": str(self.home / "keys.json"), "TIDEMILL_GATEWAY_KEY_PEPPER": PEPPER}
        return {**inherited, "TIDEMILL_HOME": str(self.home), **ports, **http, **stores, **secrets, **self.settings}

    def address_of(self, name: str) -> str:
        """`host:port` of a process, kept over restarts; a free port before its first start."""
        return self.ready.get(name, {}).get("address") or "127.0.0.1:0"

    def start(self, name: str) -> None:
        """Start one of scheduler, gateway, inference and wait until it is ready."""
        ready_file = self.home / f"{name}.ready.json"
        ready_file.unlink(missing_ok=True)
        environment = {**self.environment(), "TIDEMILL_READY_FILE": str(ready_file)}
        self.spawn(name, [sys.executable, "-m", f"services.{name}"], environment)
        self.wait_ready(name, ready_file.exists)
        self.ready[name] = json.loads(ready_file.read_text())
        self.wait_ready(name, lambda: self.http_status(name, "/readyz") == 200)

    def spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Start `command` in a process group of its own, its output in `<home>/<name>.log`."""
        # A killed test run must leave nothing behind. Not by preexec_fn: Python between fork and exec, beside gRPC's
        # threads, crashed the child. The kernel's parent is the spawning thread: one of a pool would take it along.
        main = threading.current_thread() is threading.main_thread()
        tied = ["setpriv", "--pdeathsig", "KILL", *command] if main else command
        with (self.home / f"{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(
                tied, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    def wait_ready(self, name: str, condition: Callable[[], bool]) -> None:
        """Wait for `condition` while the process lives."""

        def ready() -> bool:
            code = self.running[name].poll()
            assert code is None, f"{name} ended with {code}:\n{self.log_tail(name)}"
            return condition()

        try:
            wait_for(ready, STARTUP_SECONDS, f"readiness of {name}")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log_tail(name)}") from None

    def http_status(self, name: str, path: str) -> int:
        """Status of a GET at the process's operator port; 0 when nothing answers."""
        try:
            with urllib.request.urlopen(f"http://{self.ready[name]['http_address']}{path}", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code
        except OSError:
            return 0

    def log_tail(self, name: str) -> str:
        """Last lines that the process printed."""
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def kill(self, name: str) -> None:
        """SIGKILL the process itself; its children are left as they are."""
        self.running[name].kill()
        self.running.pop(name).wait(timeout=30)

    def stop(self, name: str) -> int:
        """SIGTERM the process and wait for its orderly end."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=60)

    def reachable_listeners(self) -> set[str]:
        """`command: address` of each TCP port that its processes offer beyond loopback."""
        found: set[str] = set()
        for pid, command in self.descendants().items():
            with contextlib.suppress(psutil.Error):
                for connection in psutil.Process(pid).net_connections("tcp"):
                    address = connection.laddr
                    if connection.status == psutil.CONN_LISTEN and not is_loopback(address.ip):
                        found.add(f"{command}: {address.ip}:{address.port}")
        return found

    def descendants(self) -> dict[int, str]:
        """Command line by pid of every process that works on this home, however it was started."""
        marker = f"TIDEMILL_HOME={self.home}".encode()
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if marker in (entry / "environ").read_bytes().split(b"\0"):
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except (OSError, UnicodeDecodeError):
                    continue
        return {pid: command for pid, command in found.items() if command}

    def close(self) -> None:
        """End everything, by force where it must."""
        for process in self.running.values():
            process.kill()
            process.wait(timeout=30)
        self.running.clear()
        for pid in self.descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

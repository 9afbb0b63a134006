"""Nodes of a Ray cluster on this machine, as `ray start` makes them: own loopback addresses, one token, one folder."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.inference.processes import wait_until

__all__ = ["RayCluster"]

_START_SECONDS = 300.0
_TRIES = 4
# Ray's outer address detection replaces 127.0.0.1 where several nodes are meant; these it takes as they are.
_ADDRESSES = ("127.0.0.2", "127.0.0.3")
_STARTED = "Ray runtime started"


@dataclass
class RayCluster:
    """A head (node 0) and one more node (node 1), started and killed one by one.

    Attributes:
        home: where their output goes.
    """

    home: Path
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tm-ray-", dir="/tmp")))
    nodes: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict[int, "subprocess.Popen[bytes]"])

    @property
    def address(self) -> str:
        """Of its head."""
        return f"{_ADDRESSES[0]}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What its nodes and whoever connects to it need."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}

    def start(self, number: int) -> None:
        """Start a node and wait until it is up. Ray gives itself 30 s, which a machine under load may exceed."""
        for tries_left in reversed(range(_TRIES)):
            try:
                self._start(number)
                return
            except AssertionError:
                if not tries_left:
                    raise
                self.kill(number)

    def _start(self, number: int) -> None:
        self.port = self.port or _free_port()
        where = ["--head", f"--port={self.port}"] if number == 0 else [f"--address={self.address}"]
        own = ["--include-dashboard=false", f"--temp-dir={self.folder}"] if number == 0 else []
        size = ["--num-cpus=4", "--object-store-memory=80000000", "--disable-usage-stats", "--block"]
        command = [str(Path(sys.executable).with_name("ray")), "start", *where, *own, *size]
        # A machine under load needs more than Ray's 15 s until a node's agents are up.
        patience = {"RAY_agent_register_timeout_ms": "240000"}
        output = self.home / f"ray-{number}-{len(list(self.home.glob('ray-*')))}.out"
        with output.open("wb") as file:
            self.nodes[number] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command, f"--node-ip-address={_ADDRESSES[number]}"],
                env={**os.environ, **self.environment, **patience},
                stdout=file,
                stderr=file,
            )

        def up() -> bool:
            assert self.nodes[number].poll() is None, output.read_text()[-3000:]
            return _STARTED in output.read_text()

        wait_until(up, _START_SECONDS)

    def kill(self, number: int) -> None:
        """SIGKILL all processes of a node."""
        node = self.nodes.pop(number)
        processes = self._processes(node.pid)
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        node.wait(30)
        psutil.wait_procs(processes, 30)

    def _processes(self, pid: int) -> list[psutil.Process]:
        try:
            return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            # It failed to start: what it leaves belongs to nobody any more.
            return [item for item in psutil.process_iter() if _mentions(item, str(self.folder)) and item.ppid() == 1]

    def close(self) -> None:
        """Leave nothing behind."""
        for number in sorted(self.nodes, reverse=True):
            self.kill(number)
        for process in psutil.process_iter():
            if _mentions(process, str(self.folder)):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _mentions(process: psutil.Process, text: str) -> bool:
    try:
        return text in " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return False


def _free_port() -> int:
    """Below those that Ray hands to workers, and below the system's own range."""
    for port in range(9000, 9900):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port from 9000 to 9900")

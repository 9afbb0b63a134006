"""Durable job queues on the same Redis, with the same durability and the same number of jobs in flight.

Each peer lives in an environment of its own below `.venv-peers`, made from PyPI or npm at first use and never part of
our locks. It drains no-op jobs that were enqueued before; what its acknowledgement means is said in `PEERS`. The
semantics differ: none of them keeps an account of rows, fences its workers, or plans.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import pinned
from benchmarks.figures import Figure, figure

FOLDER = pinned.ROOT / ".venv-peers"
SIDES = pinned.ROOT / "benchmarks" / "peer_sides"
_INSTALL_SECONDS = 600
_RUN_SECONDS = 300.0


class MissingPeerError(Exception):
    """The peer cannot be installed here; the message says why."""


@dataclass(frozen=True)
class Peer:
    """A queue to compare with.

    Attributes:
        packages: exact requirements.
        acknowledgement: what is durable when a job counts as done.
    """

    name: str
    packages: tuple[str, ...]
    acknowledgement: str
    node: bool = False

    def command(self) -> list[str]:
        """What drains jobs; installs the peer when it is not there.

        Raises:
            MissingPeerError: it cannot be had.
        """
        home = FOLDER / self.name
        marker = home / ".installed"
        wanted = "\n".join(self.packages)
        if not marker.exists() or marker.read_text() != wanted:
            self._install(home)
            marker.write_text(wanted)
        if self.node:
            return ["node", str(SIDES / f"{self.name}_side.mjs"), str(home / "node_modules")]
        return [str(home / "bin" / "python"), str(SIDES / f"{self.name}_side.py")]

    def _install(self, home: Path) -> None:
        if self.node:
            if not (shutil.which("npm") and shutil.which("node")):
                raise MissingPeerError("npm or node is not installed: apt-get install nodejs npm")
            home.mkdir(parents=True, exist_ok=True)
            _execute(["npm", "install", "--silent", "--no-audit", "--no-fund", *self.packages], home)
            return
        _execute([sys.executable, "-m", "venv", "--clear", str(home)], pinned.ROOT)
        _execute([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *self.packages], pinned.ROOT)


PEERS = (
    Peer("arq", ("arq==0.28.0",), "one transaction stores the result and removes the job, after it ran"),
    Peer("dramatiq", ("dramatiq[redis]==2.2.1",), "a Lua script removes the message, after it ran"),
    Peer("taskiq", ("taskiq==0.13.0", "taskiq-redis==1.2.4"), "XACK, after it ran; no result is kept"),
    Peer("bullmq", ("bullmq@6.7.0", "ioredis@6.0.0"), "a Lua script marks it completed and takes the next", node=True),
)


def _execute(command: Sequence[str], folder: Path) -> None:
    finished = subprocess.run(  # noqa: S603 - commands of our own
        command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
    )
    if finished.returncode:
        raise MissingPeerError(f"{' '.join(command)} failed: {finished.stderr.strip()[-500:]}")


def drain(peer: Peer, folder: Path, jobs: int, in_flight: int, repeats: int) -> Figure:
    """Jobs per second, each repeat on a fresh Redis; the peer has the scheduler's core, Redis the callers'.

    Raises:
        MissingPeerError: it cannot be had.
    """
    command = peer.command()
    server, rest = pinned.cores()
    rates: list[float] = []
    for number in range(repeats):
        with pinned.redis(folder / f"{peer.name}-{number}", rest) as port:
            line = pinned.run([*command, str(port), str(jobs), str(in_flight)], server, _RUN_SECONDS)
            rates.append(float(line))
    return figure(rates)

"""The clustered set on loopback: two schedulers on a Redis of their own, two gateways, one inference process.

Without an object store server: gateways and inference share a folder.
"""

import contextlib
import json
import shutil
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tidemill.errors import Reason, TidemillError
from tidemill.up.environment import base_environment
from tidemill.up.health import get_status, service_check
from tidemill.up.home import Home
from tidemill.up.ports import HOST, free_ports
from tidemill.up.services import ModelSource
from tidemill.up.spec import Check, ProcessSpec, python_module

SCHEDULERS = ("scheduler-1", "scheduler-2")
GATEWAYS = ("gateway-1", "gateway-2")
INFERENCE = "inference"
REDIS = "redis"

# Small chunks, few at a time: the job of the demo is still under way when a standby has taken over.
_SCHEDULER = {"CHUNK_ROWS": "8", "MAX_LEASES": "2"}


@dataclass(frozen=True)
class ClusterSet:
    """Where the processes of one cluster listen; `ports` by process name, `<name>-http` for operators."""

    home: Home
    ports: Mapping[str, int]
    model: ModelSource

    def address(self, name: str) -> str:
        """`host:port` for a name in `ports`."""
        return f"{HOST}:{self.ports[name]}"

    @property
    def schedulers(self) -> str:
        """Addresses of the schedulers, as gateways and workers take them."""
        return ",".join(self.address(name) for name in SCHEDULERS)

    def leader(self) -> str | None:
        """Name of the scheduler that leads now; only it calls itself ready."""
        leading = (name for name in SCHEDULERS if get_status(self.address(f"{name}-http"), "/readyz") == 200)
        return next(leading, None)


def choose_cluster(home: Home, model: ModelSource) -> ClusterSet:
    """A cluster on free ports."""
    services = (*SCHEDULERS, *GATEWAYS, INFERENCE)
    return ClusterSet(home, free_ports([REDIS, *services, *(f"{name}-http" for name in services)]), model)


def cluster_specs(chosen: ClusterSet) -> list[ProcessSpec]:
    """The processes, in the order in which they are started.

    Raises:
        TidemillError: UNAVAILABLE without redis-server.
    """
    gateway = {"SCHEDULER": chosen.schedulers, "KEY_PEPPER": chosen.home.pepper()}
    inference = {
        "SCHEDULER": chosen.schedulers,
        "MODELS": json.dumps([asdict(chosen.model)]),
        "PRELOAD": chosen.model.id,
    }
    scheduler = {"LEDGER": f"redis://{chosen.address(REDIS)}", **_SCHEDULER}
    return [
        _redis(chosen),
        *(_service(chosen, name, scheduler, stop_group=3, needs=(REDIS,)) for name in SCHEDULERS),
        *(_service(chosen, name, gateway, stop_group=1, needs=SCHEDULERS) for name in GATEWAYS),
        _service(chosen, INFERENCE, inference, stop_group=2, needs=SCHEDULERS),
    ]


def _redis(chosen: ClusterSet) -> ProcessSpec:
    program = shutil.which("redis-server")
    if program is None:
        remedy = "redis-server is not installed; run: make redis (or: sudo apt-get install redis-server)"
        raise TidemillError(Reason.UNAVAILABLE, remedy)
    folder = chosen.home.root / "redis"
    folder.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "bind": HOST,
        "port": str(chosen.ports[REDIS]),
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory": "1gb",
        "maxmemory-policy": "noeviction",
    }
    return ProcessSpec(
        name=REDIS,
        command=(program, *(item for name, value in settings.items() for item in (f"--{name}", value))),
        env=base_environment() | {"TIDEMILL_HOME": str(chosen.home.root)},
        log=chosen.home.logs / f"{REDIS}.log",
        check=_redis_check(chosen.ports[REDIS]),
        stop_group=4,
        address=chosen.address(REDIS),
    )


def _redis_check(port: int) -> Check:
    def check() -> str | None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(16).startswith(b"+PONG"):
                return None
        return "not answering"

    return check


def _service(
    chosen: ClusterSet, name: str, variables: Mapping[str, str], stop_group: int, needs: tuple[str, ...]
) -> ProcessSpec:
    service = name.partition("-")[0]
    prefix, http_address = f"TIDEMILL_{service.upper()}_", chosen.address(f"{name}-http")
    ready_file = chosen.home.run / f"{name}.ready.json"
    env = base_environment() | {
        "TIDEMILL_HOME": str(chosen.home.root),
        # Two of a kind must not write into one file.
        "TIDEMILL_TELEMETRY_DIR": str(chosen.home.root / "telemetry" / name),
        "TIDEMILL_READY_FILE": str(ready_file),
        f"{prefix}HTTP_ADDRESS": http_address,
    }
    if name != INFERENCE:
        env[f"{prefix}ADDRESS"] = chosen.address(name)
    env |= {prefix + key: value for key, value in variables.items()}
    check = _standby_check(ready_file, http_address) if name in SCHEDULERS else service_check(ready_file, http_address)
    return ProcessSpec(
        name=name,
        command=python_module(f"services.{service}"),
        env=env,
        log=chosen.home.logs / f"{name}.log",
        check=check,
        stop_group=stop_group,
        needs=needs,
        grace=30 if name == INFERENCE else 15,
        ready_file=ready_file,
        address=chosen.address(name),
        http_address=http_address,
    )


def _standby_check(ready_file: Path, http_address: str) -> Check:
    """A standby is up when it answers: it is not ready, in its own words, until it leads."""

    def check() -> str | None:
        return None if ready_file.exists() and get_status(http_address, "/readyz") else "starting"

    return check

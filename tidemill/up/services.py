"""The five processes of the embedded set: commands, addresses, environments."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tidemill.up.environment import base_environment
from tidemill.up.health import daemon_check, service_check, webserver_check
from tidemill.up.home import Home
from tidemill.up.ports import HOST
from tidemill.up.spec import Check, ProcessSpec, python_module


@dataclass(frozen=True)
class ModelSource:
    """A model by the id that jobs name and where its weights are: a folder or a name on the hub."""

    id: str
    path: str


@dataclass(frozen=True)
class EmbeddedSet:
    """What `tidemill up` was asked for.

    Attributes:
        ports: free ports by the names in `tidemill.preflight.PORTS`.
        engine: `cpu` or `gpu`.
        dagster: whether Dagster's two processes belong to the set.
    """

    home: Home
    ports: Mapping[str, int]
    models: Sequence[ModelSource]
    engine: str = "cpu"
    dagster: bool = True

    def address(self, name: str) -> str:
        """`host:port` for a name in `ports`."""
        return f"{HOST}:{self.ports[name]}"


def process_specs(chosen: EmbeddedSet, api_key: str) -> list[ProcessSpec]:
    """The processes, in the order in which they are started."""
    specs = [_scheduler(chosen), _gateway(chosen), _inference(chosen)]
    return [*specs, *_dagster(chosen, api_key)] if chosen.dagster else specs


def _service(
    chosen: EmbeddedSet, name: str, variables: Mapping[str, str], stop_group: int, grace: float
) -> ProcessSpec:
    ready_file, prefix = chosen.home.run / f"{name}.ready.json", f"TIDEMILL_{name.upper()}_"
    grpc_address = chosen.address(name) if name in chosen.ports else None
    http_address = chosen.address(f"{name}-http")
    env = base_environment() | {
        "TIDEMILL_HOME": str(chosen.home.root),
        "TIDEMILL_READY_FILE": str(ready_file),
        f"{prefix}HTTP_ADDRESS": http_address,
    }
    if grpc_address:
        env[f"{prefix}ADDRESS"] = grpc_address
    env |= {prefix + key: value for key, value in variables.items()}
    return ProcessSpec(
        name=name,
        command=python_module(f"services.{name}"),
        env=env,
        log=chosen.home.logs / f"{name}.log",
        check=service_check(ready_file, http_address),
        stop_group=stop_group,
        needs=() if name == "scheduler" else ("scheduler",),
        grace=grace,
        ready_file=ready_file,
        address=grpc_address,
        http_address=http_address,
    )


def _scheduler(chosen: EmbeddedSet) -> ProcessSpec:
    return _service(chosen, "scheduler", {}, stop_group=3, grace=15)


def _gateway(chosen: EmbeddedSet) -> ProcessSpec:
    variables = {"SCHEDULER": chosen.address("scheduler"), "KEY_PEPPER": chosen.home.pepper()}
    return _service(chosen, "gateway", variables, stop_group=1, grace=20)


def _inference(chosen: EmbeddedSet) -> ProcessSpec:
    variables = {
        "SCHEDULER": chosen.address("scheduler"),
        "ENGINE": chosen.engine,
        "MODELS": json.dumps([asdict(model) for model in chosen.models]),
        "PRELOAD": chosen.models[0].id,
    }
    return _service(chosen, "inference", variables, stop_group=2, grace=30)


def _dagster(chosen: EmbeddedSet, api_key: str) -> list[ProcessSpec]:
    address, folder = chosen.address("dagster"), str(chosen.home.dagster)
    env = base_environment() | {
        "TIDEMILL_HOME": str(chosen.home.root),
        "TIDEMILL_DAGSTER_GATEWAY": chosen.address("gateway"),
        "TIDEMILL_DAGSTER_API_KEY": api_key,
    }

    def process(name: str, check: Check, http_address: str | None, *arguments: str) -> ProcessSpec:
        return ProcessSpec(
            name=f"dagster-{name}",
            command=python_module("dagster_defs", name, "--home", folder, *arguments),
            env=env,
            log=chosen.home.logs / f"dagster-{name}.log",
            check=check,
            stop_group=4,
            needs=("gateway",),
            grace=25,
            http_address=http_address,
        )

    port = str(chosen.ports["dagster"])
    return [
        process("webserver", webserver_check(address), address, "--host", HOST, "--port", port),
        process("daemon", daemon_check(address), None),
    ]

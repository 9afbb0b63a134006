"""`tidemill doctor --bundle`: one archive for a bug report, with everything but secrets and rows."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from tidemill.cli.ledger import tool_command
from tidemill.cli.redact import known_secrets, own_environment, process_environment, redacted, redacted_environment
from tidemill.client.settings import home_folder, read_up_file
from tidemill.errors import Reason, TidemillError
from tidemill.preflight import Finding
from tidemill.up.health import get_text

_LOG_BYTES = 1 << 20
_ANSWER_BYTES = 2 << 20
_LEDGER_SECONDS = 60.0
_PREFIXES = ("TIDEMILL_", "RAY_", "VLLM_", "DAGSTER_", "OTEL_", "GRPC_", "AWS_", "HF_", "CUDA_")
_README = """What `tidemill doctor --bundle` gathered for a bug report.

doctor.json     what doctor found
versions.json   Python, the platform and every installed distribution
machine.json    processor, memory and disk
settings.json   variables of this shell and of the processes; a secret one says [removed]
up.json         where the processes of `tidemill up` are
processes/      /readyz and /metrics of each process
logs/           the last MiB of each process's log, of this run and the one before
ledger.json     what is in the ledger: counts, no rows

Keys, peppers, tokens and passwords were removed, and the archive was searched for those that this machine knows. No row
and no answer is in it, but logs name jobs and tenants: look before you send it.
"""


def write_bundle(path: Path, findings: Sequence[Finding]) -> list[str]:
    """Write the archive and return the names in it; INVALID_FILE when `path` exists or cannot be written."""
    if path.exists():
        raise TidemillError(Reason.INVALID_FILE, f"{path} exists; name a file that does not")
    up = read_up_file(home_folder())
    environments = {"shell": own_environment(), **_environments(up)}
    secrets = known_secrets(home_folder(), environments.values())
    files = {
        name: redacted(text, secrets).encode(errors="replace") for name, text in _gather(up, environments, findings)
    }
    for name, data in files.items():
        _check(name, data, secrets)
    _write(path, files)
    return sorted(files)


def _environments(up: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    processes: dict[str, Any] = up.get("processes", {})
    return {name: process_environment(process["pid"]) for name, process in processes.items()}


def _gather(
    up: Mapping[str, Any], environments: Mapping[str, Mapping[str, str]], findings: Sequence[Finding]
) -> Iterator[tuple[str, str]]:
    yield "README.txt", _README
    yield "doctor.json", _json([asdict(finding) for finding in findings])
    yield "versions.json", _json(_versions())
    yield "machine.json", _json(_machine())
    yield "settings.json", _json({name: redacted_environment(env, _PREFIXES) for name, env in environments.items()})
    yield "up.json", _json({key: value for key, value in up.items() if key != "api_key"})
    for name, process in up.get("processes", {}).items():
        if process["http_address"] and not name.startswith("dagster"):
            for page in ("readyz", "metrics"):
                yield f"processes/{name}-{page}.txt", get_text(process["http_address"], f"/{page}")[:_ANSWER_BYTES]
    for log in sorted((home_folder() / "logs").glob("*.log*")):
        yield f"logs/{log.name}", _tail(log)
    yield "ledger.json", _ledger()


def _versions() -> dict[str, Any]:
    installed = {dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"]}
    return {"python": sys.version, "platform": " ".join(os.uname()), "installed": dict(sorted(installed.items()))}


def _machine() -> dict[str, Any]:
    memory = dict(line.split(":", 1) for line in _tail(Path("/proc/meminfo")).splitlines() if ":" in line)
    home = home_folder()
    folders = [folder for folder in (home, Path("/tmp"), Path("/dev/shm")) if folder.exists()]  # noqa: S108 - looked at only
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "memory": {name: value.strip() for name, value in memory.items()},
        "disk_bytes": {str(folder): shutil.disk_usage(folder)._asdict() for folder in folders},
    }


def _ledger() -> str:
    """What `tidemill ledger inspect` says, or why it says nothing."""
    command = tool_command("inspect", "--json")
    if command is None:
        return _json({"error": "the scheduler is not installed here"})
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LEDGER_SECONDS, check=False)  # noqa: S603 - our own command
    except subprocess.TimeoutExpired:
        return _json({"error": f"no answer within {_LEDGER_SECONDS:g} s"})
    return done.stdout if done.stdout else _json({"error": done.stderr.strip(), "status": done.returncode})


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if file.seekable() and (size := path.stat().st_size) > _LOG_BYTES:
                file.seek(size - _LOG_BYTES)
            return file.read(_LOG_BYTES).decode(errors="replace")
    except OSError as exc:
        return f"{path} cannot be read: {exc}"


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True, default=str) + "\n"


def _check(name: str, data: bytes, secrets: frozenset[str]) -> None:
    text = data.decode(errors="replace")
    if any(secret in text for secret in secrets):
        raise TidemillError(Reason.INTERNAL, f"a secret is left in {name}, so nothing was written; please report that")


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    """For its owner only, and whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise TidemillError(Reason.INVALID_FILE, f"cannot write {path}: {(exc.strerror or str(exc)).lower()}") from None
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(f"tidemill-bundle/{name}")
                member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
                archive.addfile(member, io.BytesIO(data))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

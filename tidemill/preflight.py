"""What this machine can run, found out in well under a second and before anything is installed.

Standard library only: `scripts/preflight.py` loads this file by its path, `tidemill doctor` imports it.
"""

import ctypes
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser, Error
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Level = Literal["ok", "warning", "error"]
Engine = Literal["cpu", "gpu"]

GIB = 1 << 30
MIB = 1 << 20

# Measured on Debian 12 with Python 3.11: `du -sh .venv`, the wheels' sizes, and the peak of summed PSS of all processes
# during `make demo` (docs/operations.md says how).
DOWNLOAD_BYTES: dict[Engine, int] = {"cpu": 1 * GIB, "gpu": 5 * GIB}
DISK_BYTES: dict[Engine, int] = {"cpu": 5 * GIB, "gpu": 14 * GIB}
MEMORY_BYTES: dict[Engine, int] = {"cpu": 5 * GIB, "gpu": 12 * GIB}

PYTHONS = ((3, 11), (3, 12), (3, 13))
PORTS = {
    "gateway": 7070,
    "gateway-http": 7071,
    "scheduler": 7080,
    "scheduler-http": 7081,
    "inference-http": 7091,
    "dagster": 3000,
}
INDEX_SECONDS = 0.4


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what to do where it is not as it must be."""

    name: str
    level: Level
    found: str
    remedy: str = ""


def run(engine: Engine = "cpu", folder: Path | None = None, *, installing: bool = True) -> list[Finding]:
    """Every finding. `installing` also looks at disk and package index, which an installed machine needs no more."""
    folder = folder or Path.cwd()
    findings = [python_version(), machine(engine), libraries(), memory(engine), shared_memory(), graphics(engine)]
    findings += ports()
    if installing:
        findings += [disk(engine, folder), package_index()]
    return findings


def needs(engine: Engine) -> str:
    """What the demo takes, in a line."""
    sizes = DOWNLOAD_BYTES[engine], DISK_BYTES[engine], MEMORY_BYTES[engine]
    download, space, peak = (f"{size / GIB:.0f} GiB" for size in sizes)
    return f"needs about {download} of downloads (once), {space} of disk and {peak} of memory"


def python_version(version: tuple[int, int] | None = None) -> Finding:
    """The interpreter that runs this."""
    current = version or sys.version_info[:2]
    found = f"Python {current[0]}.{current[1]} at {sys.executable}"
    if current in PYTHONS:
        return Finding("python", "ok", found)
    return Finding("python", "error", found, "use Python 3.11, 3.12 or 3.13, for instance: make demo PYTHON=python3.11")


def machine(engine: Engine, system: str = "", architecture: str = "", cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """Operating system and processor."""
    system, architecture = system or platform.system(), architecture or platform.machine()
    found = f"{system} on {architecture}"
    if (system, architecture) != ("Linux", "x86_64"):
        remedy = (
            "the services run on Linux x86-64 only; what works here is the client: pip install tidemill, then "
            "TIDEMILL_ADDRESS=<host:port> of a gateway elsewhere"
        )
        return Finding("machine", "error", found, remedy)
    if engine == "cpu" and "avx2" not in _cpu_flags(cpuinfo):
        remedy = "the CPU engine needs AVX2; use a newer processor, or a GPU: make demo ENGINE=gpu"
        return Finding("machine", "error", f"{found} without AVX2", remedy)
    return Finding("machine", "ok", found)


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split() for line in lines if line.startswith("flags")), ()))


def libraries(names: tuple[str, ...] = ("libnuma.so.1", "libstdc++.so.6")) -> Finding:
    """Shared libraries that vLLM links to and no wheel brings."""
    missing = [name for name in names if not _loads(name)]
    if not missing:
        return Finding("libraries", "ok", ", ".join(names))
    remedy = "Debian, Ubuntu: sudo apt install libnuma1 libstdc++6; elsewhere: numactl-libs, libstdc++"
    return Finding("libraries", "error", f"{', '.join(missing)} not found", remedy)


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def memory(engine: Engine, available: int | None = None) -> Finding:
    """Memory that is free now, within the control group's limit."""
    free = available_memory() if available is None else available
    found = f"{free / GIB:.1f} GiB of memory available"
    if free >= MEMORY_BYTES[engine]:
        return Finding("memory", "ok", found)
    remedy = f"at its peak it takes {MEMORY_BYTES[engine] / GIB:.0f} GiB: end other programs or use a larger machine"
    return Finding("memory", "error", found, remedy)


def available_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that may still be used: the system's estimate, or what the control group leaves, whichever is less."""
    available = sys.maxsize
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except OSError:
        return available
    return min(available, *_group_limits(groups)) if groups.is_dir() else available


def _group_limits(groups: Path) -> Iterator[int]:
    yield sys.maxsize
    pairs = (
        (groups / "memory.max", groups / "memory.current"),
        (groups / "memory" / "memory.limit_in_bytes", groups / "memory" / "memory.usage_in_bytes"),
    )
    for limit, usage in pairs:
        try:
            yield int(limit.read_text()) - int(usage.read_text())
        except (OSError, ValueError):
            continue


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # noqa: S108 - the system's own folder
    """Ray's object store lies in shared memory where there is enough."""
    if not folder.is_dir():
        return Finding("shared memory", "warning", f"no {folder}", "Ray keeps its objects in a file instead: slower")
    free = shutil.disk_usage(folder).free
    found = f"{free / MIB:.0f} MiB free in {folder}"
    if free >= 100 * MIB:
        return Finding("shared memory", "ok", found)
    return Finding(
        "shared memory", "warning", found, "Ray keeps its objects in a file instead; in Docker: --shm-size=1g"
    )


def graphics(engine: Engine, proc: Path = Path("/proc/driver/nvidia/version")) -> Finding:
    """Whether an NVIDIA driver is loaded."""
    present = proc.exists()
    found = "NVIDIA driver loaded" if present else "no NVIDIA driver"
    if engine == "gpu" and not present:
        remedy = "install NVIDIA's driver (nvidia-smi must answer), or leave ENGINE=gpu out to run on the CPU"
        return Finding("gpu", "error", found, remedy)
    if engine == "cpu" and present:
        return Finding("gpu", "ok", f"{found}; it stays unused", "make demo ENGINE=gpu uses it")
    return Finding("gpu", "ok", found)


def ports() -> Iterator[Finding]:
    """The default ports; a taken one is no error, the next free one is used."""
    for name, port in PORTS.items():
        if _is_free(port):
            continue
        following = next((other for other in range(port + 1, port + 200) if _is_free(other)), None)
        if following is None:
            yield Finding("ports", "error", f"{name}: {port} and all behind it are taken", "end what listens there")
        else:
            yield Finding("ports", "warning", f"{name}: {port} is taken", f"{following}, the next free one, is used")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def disk(engine: Engine, folder: Path) -> Finding:
    """Room where the environment goes."""
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB of disk free at {folder}"
    if free >= DISK_BYTES[engine]:
        return Finding("disk", "ok", found)
    return Finding("disk", "error", found, f"free {DISK_BYTES[engine] / GIB:.0f} GiB there, or clone elsewhere")


def package_index() -> Finding:
    """Whether the index that pip would use can be reached."""
    url = index_url()
    parts = urlsplit(url)
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    if parts.scheme == "file":
        return Finding("package index", "ok", f"a folder: {parts.path}")
    if proxy:
        return Finding("package index", "ok", f"{parts.hostname} through a proxy (not tried)")
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname or "", port), INDEX_SECONDS):
            return Finding("package index", "ok", f"{parts.hostname} answers")
    except OSError as exc:
        remedy = "check the network, or name a mirror: PIP_INDEX_URL=https://… make demo"
        # A machine that has everything installed needs no index, so this alone stops nothing.
        return Finding("package index", "warning", f"{parts.hostname} does not answer ({exc})", remedy)


def index_url() -> str:
    """pip's index: from the environment, its configuration files, or the public one."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url
    home = Path.home()
    files = (
        os.environ.get("PIP_CONFIG_FILE", ""),
        home / ".config/pip/pip.conf",
        home / ".pip/pip.conf",
        "/etc/pip.conf",
    )
    parser = ConfigParser(interpolation=None)
    for path in files:
        try:
            parser.read(path or os.devnull)
        except (Error, UnicodeDecodeError):
            continue
    return parser.get("global", "index-url", fallback="https://pypi.org/simple")


def report(findings: list[Finding], write: Callable[[str], object] = print) -> bool:
    """Print the findings with their remedies; False when one of them is an error."""
    signs = {"ok": "ok  ", "warning": "note", "error": "FAIL"}
    for finding in findings:
        write(f"{signs[finding.level]} {finding.name}: {finding.found}")
        if finding.remedy and finding.level != "ok":
            write(f"     -> {finding.remedy}")
    return all(finding.level != "error" for finding in findings)

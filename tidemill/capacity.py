"""What models this machine can run, from what is found on it. Standard library only."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill import profiles
from tidemill.preflight import GIB, MIB, Engine, Finding, available_memory
from tidemill.profiles import PROFILES, Profile
from tidemill.weights import fingerprint, weight_bytes

PREFIX = "TIDEMILL_INFERENCE_"
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
_RESERVE_BYTES = 512 * MIB
_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_QUERY_SECONDS = 10.0


@dataclass(frozen=True)
class Card:
    """A GPU: its name and its memory in bytes."""

    name: str
    memory: int


def cores(groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Processor cores that may be used, within the control group's quota."""
    usable = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (groups / "cpu.max").read_text().split()
        return min(usable, int(quota) / int(period))
    except (OSError, ValueError):
        return usable


def cards(command: tuple[str, ...] = _QUERY) -> list[Card]:
    """The GPUs, as NVIDIA's own tool lists them; none where it does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    pairs = (line.rpartition(",") for line in done.stdout.splitlines())
    return [Card(name.strip(), int(size) * MIB) for name, _, size in pairs if size.strip().isdecimal()]


def findings(
    engine: Engine, environment: Mapping[str, str], memory: int | None = None, found: list[Card] | None = None
) -> Iterator[Finding]:
    """Cores and memory, the profile, the largest model, and whether the models that are configured fit."""
    gpus = (cards() if engine == "gpu" else []) if found is None else found
    if engine == "gpu" and not gpus:
        remedy = "nvidia-smi must list the GPUs: install NVIDIA's driver, in a container pass them on (--gpus all)"
        yield Finding("capacity", "error", "no GPU answers", remedy)
        return
    room = min(card.memory for card in gpus) if engine == "gpu" else memory or available_memory()
    yield _machine(engine, room, gpus)
    profile = PROFILES.get(environment.get(f"{PREFIX}PROFILE", ""))
    fitting = profiles.suggested(engine, room)
    yield _profile(environment, profile, fitting)
    if profile is not None and profile.engine != engine:
        return
    weights = _weights_room(engine, room, environment, profile)
    yield _largest(engine, weights, room)
    yield from _configured(engine, weights, environment)


def _machine(engine: Engine, room: int, gpus: list[Card]) -> Finding:
    if engine == "gpu":
        names = ", ".join(f"{card.name} ({card.memory / GIB:.0f} GiB)" for card in gpus)
        return Finding("capacity", "ok", f"{cores():g} cores, {len(gpus)} GPUs: {names}")
    return Finding("capacity", "ok", f"{cores():g} cores, {room / GIB:.1f} GiB of memory available")


def _profile(environment: Mapping[str, str], chosen: Profile | None, fitting: Profile) -> Finding:
    name = environment.get(f"{PREFIX}PROFILE", "")
    advice = f"{PREFIX}PROFILE={fitting.name}"
    if name and chosen is None:
        return Finding("profile", "error", f"{name!r} is none of {', '.join(PROFILES)}", f"set {advice}")
    if chosen is None:
        return Finding("profile", "ok", f"none set; for this machine: {advice}")
    if chosen.engine != fitting.engine:
        found = f"{chosen.name} is for a {chosen.engine.upper()}, this runs on {fitting.engine.upper()}"
        return Finding("profile", "error", found, f"set {advice}, or --engine {chosen.engine}")
    if chosen.gpu_bytes > fitting.gpu_bytes:
        found = f"{chosen.name} is for a GPU of {chosen.gpu_bytes / GIB:.0f} GiB, larger than the one here"
        return Finding("profile", "warning", found, f"its batches may not fit: set {advice}")
    return Finding("profile", "ok", f"{chosen.name}: {chosen.reason}")


def _weights_room(engine: Engine, room: int, environment: Mapping[str, str], profile: Profile | None) -> int:
    default = profile.kv_cache_bytes if profile else 512 * MIB if engine == "cpu" else 0
    return profiles.weights_room(
        engine,
        room,
        _bytes(environment, "KV_CACHE_BYTES", default),
        _bytes(environment, "RESERVE_BYTES", _RESERVE_BYTES),
    )


def _bytes(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(PREFIX + name, "")
    return int(text) if text.isdecimal() else default


def _largest(engine: Engine, weights: int, room: int) -> Finding:
    if not weights:
        return Finding("largest model", "error", f"no weights fit into {room / GIB:.1f} GiB", _smaller(engine))
    sizes = " or ".join(f"{_parameters(weights, size)} in {dtype}" for dtype, size in DTYPE_BYTES.items())
    where = "one GPU" if engine == "gpu" else "memory"
    return Finding("largest model", "ok", f"about {sizes} beside keys and values in {where}; {_smaller(engine)}")


def _parameters(weights: int, size: int) -> str:
    count = weights / size
    return f"{count / 1e9:.1f} billion parameters" if count >= 1e8 else f"{count / 1e6:.0f} million parameters"


def _smaller(engine: Engine) -> str:
    if engine == "gpu":
        return f"{PREFIX}TENSOR_PARALLEL spreads a larger one over several GPUs"
    return f"lower {PREFIX}KV_CACHE_BYTES for a larger one"


def _configured(engine: Engine, weights: int, environment: Mapping[str, str]) -> Iterator[Finding]:
    """The models in folders that the environment names, by the size of their weights as they are stored."""
    for item in environment.get(f"{PREFIX}MODELS", "").split(","):
        name, _, path = item.strip().partition("=")
        size = weight_bytes(fingerprint(Path(path).expanduser())) if path else 0
        if size > weights:
            found = f"weights of {size / GIB:.1f} GiB, and there is room for {weights / GIB:.1f} GiB"
            yield Finding(f"model {name}", "error", found, _smaller(engine))
        elif size:
            yield Finding(f"model {name}", "ok", f"weights of {size / GIB:.2g} GiB fit")

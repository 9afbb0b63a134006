"""Settings of the inference service: environment variables `TIDEMILL_INFERENCE_*`."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.inference.engine_config import Device, RowOrder
from services.inference.rayenv import RayOptions
from tidemill.config import CommonSettings
from tidemill.model_list import read_models
from tidemill.profiles import PROFILES

__all__ = ["RAY_FOLDERS", "InferenceSettings", "ModelSource", "parse_counts", "parse_models", "with_listed"]

MIB = 1 << 20
RAY_FOLDERS = "tidemill-ray-*"
# Not the user's own folder for temporary files: its path may be long, and socket paths end at 107 bytes.
_SHORT_PATHS = "/tmp"  # noqa: S108 - mkdtemp makes private folders


@dataclass(frozen=True)
class ModelSource:
    """A model to offer: the id that jobs name, and a local folder or hub name."""

    model: str
    source: str


def with_listed(sources: Sequence[ModelSource], home: Path) -> tuple[ModelSource, ...]:
    """The models of the settings, and those of `tidemill models add` below `home`; the former win."""
    named = {source.model for source in sources}
    listed = [ModelSource(model.id, model.path) for model in read_models(home) if model.id not in named]
    return (*sources, *listed)


def parse_models(text: str) -> tuple[ModelSource, ...]:
    """`tiny=/path,Qwen/Qwen2.5-0.5B-Instruct` or a JSON list of {"id", "path"}; ValueError when it is neither."""
    if text.lstrip().startswith("["):
        items = cast("list[dict[str, Any]]", json.loads(text))
        sources = [ModelSource(str(item["id"]), str(item["path"])) for item in items]
    else:
        pairs = [item.strip().partition("=") for item in text.split(",") if item.strip()]
        sources = [ModelSource(name, path or name) for name, _, path in pairs]
    names = [source.model for source in sources]
    if len(set(names)) != len(names) or not all(names):
        raise ValueError("each model needs an id of its own")
    return tuple(sources)


def parse_counts(text: str) -> dict[str, int]:
    """`2` (under the empty id) or `one=2,two=1`, each from 1 to 1000; ValueError when it is neither."""
    counts: dict[str, int] = {}
    for item in text.split(","):
        model, _, count = item.strip().rpartition("=")
        if not count.isdecimal() or not 1 <= int(count) <= 1000 or model in counts or ("" in counts):
            raise ValueError(f"{text!r} is neither a number nor id=number pairs, each number from 1 to 1000")
        counts[model] = int(count)
    return counts


def _count_of(text: str, model: str) -> int:
    counts = parse_counts(text)
    return counts.get(model, counts.get("", 1))


class InferenceSettings(BaseSettings):
    """What an operator may set."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_INFERENCE_", extra="ignore", frozen=True)

    scheduler: str = Field(
        default="127.0.0.1:7080", description="Address of the scheduler, or `host:port,host:port,…` of several."
    )
    http_address: str = Field(default="127.0.0.1:7091", description="Where /metrics, /healthz and /readyz are.")
    store: str = Field(default="", description="Object store, file:// or s3://. Default: `file://<home>/store`.")
    models: str = Field(default="", description="Models: `id=path-or-hub-name,…`, or a JSON list of id and path.")
    preload: str = Field(default="", description="Ids of models to load at start, comma-separated.")
    profile: str = Field(
        default="",
        description="Settings by the kind of machine: `cpu-tiny`, `cpu`, `gpu-24g`, `gpu-80g`, `gpu-141g`; what is set "
        "beside it wins. `tidemill doctor` says which fits.",
    )
    engine: Device = Field(default="cpu", description="`cpu` or `gpu`: what vLLM runs on.")
    slots: int = Field(default=4, ge=1, le=256, description="Most leases worked on at a time.")
    call_rows: int = Field(default=512, ge=1, le=4096, description="Most rows of one engine call.")
    part_seconds: float = Field(default=1.0, gt=0, le=60, description="Results are committed about so often.")
    backlog_bytes: int = Field(
        default=64 * MIB, ge=MIB, description="Results that may wait to be committed; engines stand still beyond."
    )
    max_model_len: int = Field(default=8192, ge=16, description="Cap on a model's window, in tokens.")
    max_num_seqs: int = Field(default=256, ge=1, description="Most rows in an engine's batch.")
    max_num_batched_tokens: int = Field(default=4096, ge=16, description="Most tokens of one engine step.")
    kv_cache_bytes: int = Field(
        default=512 * MIB, ge=0, description="Keys and values of one engine. On GPU, unset or 0: vLLM's choice."
    )
    compile: bool = Field(
        default=False, description="Compile models: faster answers, much slower loads. On GPU, unset: yes."
    )
    row_order: RowOrder = Field(
        default="prefix",
        description="Order of rows that wait for an engine: `prefix` sorts them for its cache, `arrival` as they come.",
    )
    max_engines: int = Field(default=4, ge=1, description="Most engines in memory at a time, on each node.")
    replicas: str = Field(
        default="1", description="Engines of each model, where nodes have room: `2`, or `id=2,…` (others have 1)."
    )
    tensor_parallel: str = Field(
        default="1", description="GPUs (or, on CPU, ranks) that share an engine, on one node: `2`, or `id=2,…`."
    )
    reserve_bytes: int = Field(default=512 * MIB, ge=0, description="Memory that loading an engine must leave free.")
    idle_ttl_seconds: float = Field(default=1800, ge=0, description="Unload engines idle for so long; 0 keeps them.")
    load_seconds: float = Field(default=1200, gt=0, description="A load that takes longer has failed.")
    probe_seconds: float = Field(default=10, gt=0, description="How often engines are asked for a sign of life.")
    canary_seconds: float = Field(default=120, gt=0, description="An engine silent for so long is dead.")
    retry_load_seconds: float = Field(
        default=60, gt=0, description="Pause after a failed load; doubles, to 20 minutes."
    )
    load_attempts: int = Field(
        default=5,
        ge=1,
        description="Loads that may fail in a row; then only a change of the model's folder, or pinning or undraining "
        "the model, has it tried again.",
    )
    ray_address: str = Field(default="", description="An existing Ray cluster. Default: a small local one.")
    ray_probe_seconds: float = Field(default=2, gt=0, description="How often Ray's head is asked for a sign of life.")
    ray_lost_seconds: float = Field(
        default=20, gt=0, description="A Ray head silent for so long is gone; the service ends with status 75."
    )
    ray_cpus: int = Field(default=8, ge=2, description="Logical CPUs of the local cluster: tasks at a time.")
    object_store_bytes: int = Field(default=100 * MIB, ge=78_643_200, description="Ray's object store, local cluster.")
    drain_seconds: float = Field(default=10, ge=0, description="How long work in flight may last after SIGTERM.")

    @model_validator(mode="before")
    @classmethod
    def _with_profile(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not (name := values.get("profile")):
            return values
        if name not in PROFILES:
            raise ValueError(f"profile {name!r} is none of {', '.join(PROFILES)}")
        profile = PROFILES[name]
        if values.get("engine", profile.engine) != profile.engine:
            raise ValueError(
                f"profile {name} is for {profile.engine}, and engine is {values['engine']}: choose another profile"
            )
        return {**profile.settings, **values}

    @field_validator("models")
    @classmethod
    def _parsable(cls, text: str) -> str:
        parse_models(text)
        return text

    @field_validator("replicas", "tensor_parallel")
    @classmethod
    def _counts(cls, text: str) -> str:
        parse_counts(text)
        return text

    def replicas_of(self, model: str) -> int:
        """How many engines the model should have."""
        return _count_of(self.replicas, model)

    def tensor_parallel_of(self, model: str) -> int:
        """How many ranks share an engine of the model."""
        return _count_of(self.tensor_parallel, model)

    @property
    def sources(self) -> tuple[ModelSource, ...]:
        """`models`, parsed."""
        return parse_models(self.models)

    @property
    def preloaded(self) -> tuple[str, ...]:
        """`preload`, split."""
        return tuple(item.strip() for item in self.preload.split(",") if item.strip())

    @property
    def kv_bytes(self) -> int:
        """`kv_cache_bytes`; 0, which leaves it to vLLM, on a GPU where nobody set it."""
        return self.kv_cache_bytes if self.engine == "cpu" or "kv_cache_bytes" in self.model_fields_set else 0

    @property
    def compiled(self) -> bool:
        """`compile`; on a GPU where nobody set it, true."""
        return self.compile or (self.engine == "gpu" and "compile" not in self.model_fields_set)

    def store_uri(self, common: CommonSettings) -> str:
        """`store`, or its default below the home folder."""
        return self.store or (common.home / "store").absolute().as_uri()

    def ray_options(self) -> RayOptions:
        """How Ray is started, with a new private folder for its files."""
        return RayOptions(
            address=self.ray_address,
            cpus=self.ray_cpus,
            object_store_bytes=self.object_store_bytes,
            folder=Path(tempfile.mkdtemp(prefix=RAY_FOLDERS.removesuffix("*"), dir=_SHORT_PATHS)),
            no_progress_seconds=int(max(self.load_seconds, 10 * self.canary_seconds)),
        )

"""What an engine is started with, and what it says of itself and of rows. Plain data that travels between processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tidemill.encoding import Request, SamplingValue
from tidemill.errors import RowCode

__all__ = [
    "Answer",
    "Call",
    "Device",
    "EngineConfig",
    "EngineRow",
    "Outcome",
    "Probe",
    "Refusal",
    "RowOrder",
    "engine_arguments",
]

Device = Literal["cpu", "gpu"]
RowOrder = Literal["prefix", "arrival"]


@dataclass(frozen=True)
class EngineConfig:
    """How to start an engine.

    Attributes:
        model: model id, for messages and spans.
        path: folder with weights, configuration and tokenizer.
        window: most tokens of prompt and answer together.
        dtype: vLLM's name of the number format; `auto` takes the model's own.
        kv_cache_bytes: memory for keys and values, in bytes; 0 leaves it to vLLM (GPU).
        compile: let vLLM compile the model: faster answers, much slower loads, needs a C++ compiler on CPU.
        row_order: how rows that wait are taken, see `admission`.
    """

    model: str
    path: str
    device: Device
    window: int
    dtype: str
    kv_cache_bytes: int
    max_num_seqs: int
    max_num_batched_tokens: int
    compile: bool = False
    row_order: RowOrder = "prefix"


@dataclass(frozen=True)
class EngineRow:
    """One row for an engine: its index in the job and the decoded request."""

    row_index: int
    request: Request


@dataclass(frozen=True)
class Call:
    """What the rows of one call have in common.

    Attributes:
        group: rows are aborted by group; one a lease.
        defaults: the job's sampling values.
    """

    group: str
    defaults: Mapping[str, SamplingValue] = field(default_factory=dict[str, SamplingValue])


@dataclass(frozen=True)
class Answer:
    """What the model answered; times in seconds, None where the engine reports none."""

    text: str
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    queue_seconds: float | None
    prefill_seconds: float | None
    decode_seconds: float | None


@dataclass(frozen=True)
class Refusal:
    """Why a row has no answer."""

    code: RowCode
    message: str


@dataclass(frozen=True)
class Outcome:
    """How a row ended at the engine."""

    row_index: int
    result: Answer | Refusal


@dataclass(frozen=True)
class Probe:
    """Signs of life: steps since the start, requests that wait or run."""

    steps: int
    unfinished: int


def engine_arguments(config: EngineConfig) -> dict[str, Any]:
    """Arguments of vLLM's engine, the same in shared and dedicated mode."""
    arguments: dict[str, Any] = {
        "model": config.path,
        "dtype": config.dtype,
        "max_model_len": config.window,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "enable_prefix_caching": True,
        "enforce_eager": not config.compile,
        "seed": 0,
    }
    if config.kv_cache_bytes:
        arguments["kv_cache_memory_bytes"] = config.kv_cache_bytes
    return arguments

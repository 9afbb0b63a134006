"""What an engine is started with, and what it says of itself and of rows. Plain data that travels between processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from services.inference.tasks import GENERATE, ModelTasks
from tidemill.encoding import Request, SamplingValue
from tidemill.errors import RowCode
from tidemill.outputs import Alternative, ClassScore, Output, TokenLogprob

__all__ = [
    "STRUCTURED_OUTPUTS",
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

# vLLM would take another backend for schemas that this one refuses, and then for all others. Free whitespace between
# fields has no end with models that like it.
STRUCTURED_OUTPUTS: Mapping[str, Any] = {"backend": "xgrammar", "disable_any_whitespace": True}
"""How answers are kept to a schema: arguments of vLLM's `StructuredOutputsConfig`."""


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
        tasks: what the model can be asked for.
        tensor_parallel: ranks that share each layer, all on one machine.
        gpu_share: part of a GPU's memory to take, above 0 to 1; 0 leaves it to vLLM.
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
    tasks: ModelTasks = GENERATE
    tensor_parallel: int = 1
    gpu_share: float = 0.0

    @property
    def pooling(self) -> bool:
        """The model gives vectors or numbers, not text."""
        return self.tasks != GENERATE


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
    """What the model answered; times in seconds, None where the engine reports none.

    `text` and the last five fields are those of `tidemill.outputs.Output`; `output_tokens` counts all alternatives.
    """

    text: str | None
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    queue_seconds: float | None
    prefill_seconds: float | None
    decode_seconds: float | None
    vector: bytes | None = None
    classes: tuple[ClassScore, ...] | None = None
    score: float | None = None
    alternatives: tuple[Alternative, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def output(self) -> Output:
        """The answer without how it came about."""
        return Output(self.text, self.vector, self.classes, self.score, self.alternatives, self.logprobs)


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
    # Models that give vectors or numbers read a text as a whole, in one step. So does a model on CPU, whose engine a
    # seeded row kills whose prompt is read in several steps: each draws a token that is thrown away, and the generator
    # of a CPU cannot be set back.
    whole_prompts = config.pooling or config.device == "cpu"
    step_tokens = max(config.max_num_batched_tokens, config.window if whole_prompts else 0)
    arguments: dict[str, Any] = {
        "model": config.path,
        "dtype": config.dtype,
        "max_model_len": config.window,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": step_tokens,
        "enforce_eager": not config.compile,
        "seed": 0,
    }
    if config.pooling:
        # Which of them have a cache of prefixes vLLM knows.
        arguments["runner"] = "pooling"
    else:
        arguments["enable_prefix_caching"] = True
        if whole_prompts:
            arguments["enable_chunked_prefill"] = False
    if config.kv_cache_bytes:
        arguments["kv_cache_memory_bytes"] = config.kv_cache_bytes
    if config.tensor_parallel > 1:
        # The ranks are processes of the engine's own machine; Ray only reserves what they use.
        arguments.update(tensor_parallel_size=config.tensor_parallel, distributed_executor_backend="mp")
    if config.gpu_share:
        arguments["gpu_memory_utilization"] = config.gpu_share
    return arguments

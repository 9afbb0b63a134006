"""Configuration profiles of the inference service: settings that belong together, by the device they are for.

Standard library only: `tidemill doctor` reads this beside the service. A variable that is set wins over its profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tidemill.preflight import GIB, MIB, Engine

Setting = Literal["engine", "kv_cache_bytes", "max_num_batched_tokens", "max_num_seqs", "slots"]


@dataclass(frozen=True)
class Profile:
    """Settings for a kind of machine.

    Attributes:
        engine: what vLLM runs on.
        gpu_bytes: memory of the GPU it is for; 0 on CPU.
        kv_cache_bytes: keys and values of one engine; 0 leaves it to vLLM, which takes what the weights leave of its
            share of the GPU.
        max_num_seqs: most rows in an engine's batch.
        max_num_batched_tokens: most tokens of an engine step.
        slots: most chunks at work.
        reason: why these figures.
    """

    name: str
    engine: Engine
    gpu_bytes: int
    kv_cache_bytes: int
    max_num_seqs: int
    max_num_batched_tokens: int
    slots: int
    reason: str

    @property
    def settings(self) -> Mapping[Setting, str | int]:
        """The settings by name."""
        return {
            "engine": self.engine,
            "kv_cache_bytes": self.kv_cache_bytes,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "slots": self.slots,
        }


_KNOWN = (
    Profile(
        "cpu-tiny",
        "cpu",
        0,
        128 * MIB,
        256,
        4096,
        4,
        "for the generated model, in tests and demonstrations: its keys and values are small, its steps take no time, "
        "so the batch is wide",
    ),
    Profile(
        "cpu",
        "cpu",
        0,
        2 * GIB,
        64,
        2048,
        2,
        "a real model on CPU computes, it does not wait for memory: a wider batch makes steps longer and not rows "
        "faster, and a cancel waits for a step. 2 GiB hold 64 rows of 1,300 tokens of a model with Qwen2.5-0.5B's 24 "
        "KiB a token in float32",
    ),
    Profile(
        "gpu-24g",
        "gpu",
        24 * GIB,
        0,
        256,
        8192,
        4,
        "vLLM 0.32's own figures for offline work below 70 GiB; four chunks of up to 512 rows a call fill the batch "
        "eight times over",
    ),
    Profile(
        "gpu-80g",
        "gpu",
        80 * GIB,
        0,
        1024,
        16384,
        8,
        "vLLM 0.32's own figures for offline work from 70 GiB on, where memory bandwidth wants wide batches; eight "
        "chunks, because their last rows would leave half the batch empty with four. On an A100 vLLM itself takes 256 "
        "and 8192: set both",
    ),
    Profile(
        "gpu-141g",
        "gpu",
        141 * GIB,
        0,
        1024,
        16384,
        12,
        "as gpu-80g; what memory there is more goes to keys and values, which hold longer rows, so that more chunks "
        "are there to fill the batch when rows of several lengths end",
    ),
)

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in _KNOWN}

WEIGHT_FACTOR = 1.2
"""Memory of an engine on CPU for each byte of weights: they are converted while they are read."""

RUNTIME_BYTES = 1300 * MIB
"""Python, torch and vLLM before any weight is read (measured: 1.2 GiB together)."""

GPU_SHARE = 0.92
"""vLLM's own share of a GPU's memory (0.32)."""

GPU_WEIGHT_SHARE = 0.7
"""Of that share, what weights may take: the rest is for activations, keys and values, or few rows run at once."""


def suggested(engine: Engine, gpu_bytes: int = 0) -> Profile:
    """The profile for a machine: on a GPU the largest that is not for a larger one (5 % less is as large).

    Args:
        gpu_bytes: memory of its smallest GPU.
    """
    if engine == "cpu":
        return PROFILES["cpu"]
    on_gpu = [profile for profile in _KNOWN if profile.engine == "gpu"]
    fitting = [profile for profile in on_gpu if profile.gpu_bytes * 0.95 <= gpu_bytes]
    return max(fitting or on_gpu[:1], key=lambda profile: profile.gpu_bytes)


def weights_room(engine: Engine, memory: int, kv_cache_bytes: int, reserve_bytes: int) -> int:
    """Bytes of weights that one engine can load.

    Args:
        memory: bytes free on the machine (CPU), or of one GPU.
        kv_cache_bytes: keys and values of the engine; on a GPU 0 leaves them to vLLM.
        reserve_bytes: what a load must leave free (CPU).
    """
    if engine == "gpu":
        share = int(memory * GPU_SHARE)
        return max(0, share - kv_cache_bytes if kv_cache_bytes else int(share * GPU_WEIGHT_SHARE))
    return max(0, int((memory - RUNTIME_BYTES - kv_cache_bytes - reserve_bytes) / WEIGHT_FACTOR))

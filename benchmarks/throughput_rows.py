"""Rows and parameters of `benchmarks.throughput`: the same for every side."""

from dataclasses import dataclass
from typing import Any

MAX_NUM_SEQS = 256
MAX_NUM_BATCHED_TOKENS = 4096
KV_CACHE_BYTES = 512 << 20


@dataclass(frozen=True)
class Work:
    """Rows of one run: how many, and how many tokens each answer may have."""

    rows: int
    output_tokens: int

    def prompts(self, run: int) -> list[str]:
        """Unique over rows and runs: equal beginnings or whole repetitions would flatter the prefix cache."""
        start = 1_000_003 + run * 104_729
        return [f"{start + row * 7919:x} is number {row} of {run}: why?" for row in range(self.rows)]

    @property
    def sampling(self) -> dict[str, Any]:
        """Greedy."""
        return {"temperature": 0.0, "max_tokens": self.output_tokens}


def engine_arguments(model: str, dtype: str) -> dict[str, Any]:
    """What Tidemill starts its engine with, for the others."""
    return {
        "model": model,
        "dtype": dtype,
        "max_model_len": 2048,
        "max_num_seqs": MAX_NUM_SEQS,
        "max_num_batched_tokens": MAX_NUM_BATCHED_TOKENS,
        "kv_cache_memory_bytes": KV_CACHE_BYTES,
        "enable_prefix_caching": True,
        "enforce_eager": True,
        "seed": 0,
    }

"""Limits of sampling parameters, as `row.proto` states them: for the client, the gateway and the worker alike."""

from collections.abc import Mapping
from dataclasses import dataclass

from tidemill.encoding import SamplingValue

__all__ = [
    "DIMENSIONS",
    "GREEDY_BELOW",
    "MAX_ROW_LOGPROBS",
    "MAX_ROW_TOKENS",
    "MAX_STOP_BYTES",
    "MAX_STOP_STRINGS",
    "RANGES",
    "Range",
    "shared_only",
]


@dataclass(frozen=True)
class Range:
    """Numbers that a parameter takes: whole ones only or any, from `low` to `high`, `low` itself maybe left out."""

    whole: bool
    low: float
    high: int | float
    above_low: bool = False
    also: int | None = None
    """One more value that is allowed, for its special meaning."""

    def __contains__(self, value: int | float) -> bool:
        # Comparisons with NaN are false, so it is out of every range.
        if value == self.also:
            return True
        return (value > self.low if self.above_low else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        text = f"{'above' if self.above_low else 'at least'} {self.low:g} and at most {self.high}"
        return f"{text}, or {self.also}" if self.also is not None else text


RANGES: Mapping[str, Range] = {
    "temperature": Range(False, 0, 2),
    "top_p": Range(False, 0, 1, above_low=True),
    "top_k": Range(True, 1, 2**31 - 1, also=-1),
    "min_p": Range(False, 0, 1),
    "max_tokens": Range(True, 1, 2**31 - 1),
    "seed": Range(True, 0, 2**63 - 1),
    "frequency_penalty": Range(False, -2, 2),
    "presence_penalty": Range(False, -2, 2),
    "repetition_penalty": Range(False, 0, 2, above_low=True),
    "n": Range(True, 1, 16),
    "logprobs": Range(True, 0, 20),
    "min_tokens": Range(True, 0, 2**31 - 1),
}
MAX_STOP_STRINGS = 16
MAX_STOP_BYTES = 256
# Of a row: what its answers may take in memory and in a frame of results.
MAX_ROW_LOGPROBS = 1 << 16
MAX_ROW_TOKENS = 1 << 20
# Below this a temperature takes the likeliest token, in vLLM too.
GREEDY_BELOW = 1e-5
DIMENSIONS = Range(True, 1, 65_536)
"""Of an embedding."""


def shared_only(values: Mapping[str, SamplingValue]) -> list[str]:
    """The values that dedicated mode has no answer to, by name: Ray Data LLM's stage returns or carries no part of
    them."""
    return [name for name in ("n", "logprobs", "json_schema") if name in values and (name != "n" or values["n"] != 1)]

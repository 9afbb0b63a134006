"""Ranges of sampling parameters, as `row.proto` states them; the same for a job's defaults and a row's own values."""

from collections.abc import Iterator
from typing import Any, cast

from services.gateway.limits import MAX_ANSWERS, MAX_LOGPROBS, MAX_STOP_BYTES, MAX_STOP_STRINGS
from tidemill.errors import FieldViolation
from tidemill.json_schema import schema_problem
from tidemill.v1 import row_pb2

# name: (low, high, whether low itself is allowed)
_RANGES: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, 2, True),
    "top_p": (0, 1, False),
    "min_p": (0, 1, True),
    "frequency_penalty": (-2, 2, True),
    "presence_penalty": (-2, 2, True),
    "repetition_penalty": (0, 2, False),
    "n": (1, MAX_ANSWERS, True),
    "logprobs": (0, MAX_LOGPROBS, True),
}


def check_sampling(sampling: row_pb2.SamplingParams, max_model_len: int) -> Iterator[FieldViolation]:
    """What is out of range; fields are paths below the `sampling` field's owner. `max_model_len` 0 means unknown."""
    for name, bounds in _RANGES.items():
        if sampling.HasField(cast("Any", name)):
            yield from _check_range(name, getattr(sampling, name), bounds)
    yield from _check_integers(sampling, max_model_len)
    yield from _check_stop(sampling)
    if sampling.HasField("json_schema") and (problem := schema_problem(sampling.json_schema)):
        yield FieldViolation("sampling.json_schema", f"the schema is refused: {problem}")


def _check_range(name: str, value: float, bounds: tuple[float, float, bool]) -> Iterator[FieldViolation]:
    low, high, closed = bounds
    # Written so that NaN, which compares false with everything, is refused too.
    if not ((low <= value if closed else low < value) and value <= high):
        interval = f"from {low} to {high}" if closed else f"above {low} and at most {high}"
        yield FieldViolation(f"sampling.{name}", f"{name} is {value:g}; it must be {interval}")


def _check_integers(sampling: row_pb2.SamplingParams, max_model_len: int) -> Iterator[FieldViolation]:
    if sampling.HasField("top_k") and sampling.top_k < 1 and sampling.top_k != -1:
        yield FieldViolation("sampling.top_k", f"top_k is {sampling.top_k}; it must be 1 or more, or -1 for all tokens")
    if sampling.HasField("seed") and sampling.seed < 0:
        yield FieldViolation("sampling.seed", f"seed is {sampling.seed}; it must be from 0 to 2^63-1")
    if sampling.HasField("min_tokens") and sampling.min_tokens < 0:
        yield FieldViolation("sampling.min_tokens", f"min_tokens is {sampling.min_tokens}; it must be 0 or more")
    if sampling.HasField("max_tokens"):
        yield from _check_max_tokens(sampling.max_tokens, max_model_len)


def _check_max_tokens(value: int, max_model_len: int) -> Iterator[FieldViolation]:
    if value < 1:
        yield FieldViolation("sampling.max_tokens", f"max_tokens is {value}; it must be 1 or more")
    elif max_model_len and value >= max_model_len:
        yield FieldViolation(
            "sampling.max_tokens",
            f"max_tokens is {value}; the model's window holds {max_model_len} tokens of prompt and answer together, "
            f"so ask for at most {max_model_len - 1}",
        )


def _check_stop(sampling: row_pb2.SamplingParams) -> Iterator[FieldViolation]:
    if len(sampling.stop) > MAX_STOP_STRINGS:
        yield FieldViolation(
            "sampling.stop", f"stop has {len(sampling.stop)} strings; at most {MAX_STOP_STRINGS} are allowed"
        )
        return
    for index, text in enumerate(sampling.stop):
        size = len(text.encode())
        if not 1 <= size <= MAX_STOP_BYTES:
            yield FieldViolation(
                f"sampling.stop[{index}]", f"the stop string has {size} bytes; it must have 1 to {MAX_STOP_BYTES}"
            )

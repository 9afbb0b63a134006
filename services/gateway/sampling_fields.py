"""Ranges of sampling parameters, as `row.proto` states them; the same for a job's defaults and a row's own values."""

from collections.abc import Iterator
from typing import Any, cast

from tidemill.errors import FieldViolation
from tidemill.json_schema import schema_problem
from tidemill.sampling_limits import MAX_STOP_BYTES, MAX_STOP_STRINGS, RANGES
from tidemill.v1 import row_pb2

# Those whose only bound is their range, and whose message says it.
_PLAIN = (
    "temperature",
    "top_p",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "n",
    "logprobs",
)


def check_sampling(sampling: row_pb2.SamplingParams, max_model_len: int) -> Iterator[FieldViolation]:
    """What is out of range; fields are paths below the `sampling` field's owner. `max_model_len` 0 means unknown."""
    for name in _PLAIN:
        if sampling.HasField(cast("Any", name)) and (value := getattr(sampling, name)) not in RANGES[name]:
            problem = f"{name} is {value:g}; it must be {RANGES[name]}"
            yield FieldViolation(f"sampling.{name}", problem)
    yield from _check_integers(sampling, max_model_len)
    yield from _check_stop(sampling)
    if sampling.HasField("json_schema") and (problem := schema_problem(sampling.json_schema)):
        yield FieldViolation("sampling.json_schema", f"the schema is refused: {problem}")


def _check_integers(sampling: row_pb2.SamplingParams, max_model_len: int) -> Iterator[FieldViolation]:
    if sampling.HasField("top_k") and sampling.top_k not in RANGES["top_k"]:
        yield FieldViolation("sampling.top_k", f"top_k is {sampling.top_k}; it must be 1 or more, or -1 for all tokens")
    if sampling.HasField("seed") and sampling.seed not in RANGES["seed"]:
        yield FieldViolation("sampling.seed", f"seed is {sampling.seed}; it must be from 0 to 2^63-1")
    if sampling.HasField("min_tokens") and sampling.min_tokens not in RANGES["min_tokens"]:
        yield FieldViolation("sampling.min_tokens", f"min_tokens is {sampling.min_tokens}; it must be 0 or more")
    if sampling.HasField("max_tokens"):
        yield from _check_max_tokens(sampling.max_tokens, max_model_len)


def _check_max_tokens(value: int, max_model_len: int) -> Iterator[FieldViolation]:
    if value not in RANGES["max_tokens"]:
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

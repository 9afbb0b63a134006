"""Sampling values that must fit each other: a row's own with the job's defaults under them."""

from collections.abc import Iterator
from typing import Any, cast

from tidemill.errors import FieldViolation
from tidemill.sampling_limits import GREEDY_BELOW, MAX_ROW_LOGPROBS, MAX_ROW_TOKENS
from tidemill.v1 import row_pb2


class Effective:
    """The values that apply to a row: its own, else the job's."""

    def __init__(self, row: row_pb2.SamplingParams | None, job: row_pb2.SamplingParams) -> None:
        self._layers = (row, job) if row is not None else (job,)

    @property
    def to_compare(self) -> bool:
        """Whether a value is set that others must fit; asked for every row."""
        return any(map(_compares, self._layers))

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field that has presence."""
        for layer in self._layers:
            if layer.HasField(cast("Any", name)):
                return getattr(layer, name)
        return default


def _compares(layer: row_pb2.SamplingParams) -> bool:
    return (
        layer.HasField("n")
        or layer.HasField("logprobs")
        or layer.HasField("min_tokens")
        or layer.HasField("json_schema")
    )


def check_together(values: Effective, max_model_len: int) -> Iterator[FieldViolation]:
    """What does not fit together. `max_model_len` 0 leaves out what depends on the window where max_tokens is unset."""
    if not values.to_compare:
        return
    most = values.get("max_tokens", max(0, max_model_len - 1))
    if most and values.get("min_tokens", 0) > most:
        yield _violation("min_tokens", f"is {values.get('min_tokens')}, above max_tokens, {most}; lower it")
    yield from _check_answers(values, most)
    yield from _check_schema(values)


def _check_answers(values: Effective, most: int) -> Iterator[FieldViolation]:
    n, logprobs = values.get("n", 1), values.get("logprobs")
    if n > 1 and values.get("temperature", 1.0) < GREEDY_BELOW:
        yield _violation("n", f"is {n} at temperature 0, where all answers are equal; raise temperature or leave n out")
    if n > 1 and n * most > MAX_ROW_TOKENS:
        yield _violation("n", f"times max_tokens is {n * most}; at most {MAX_ROW_TOKENS} are allowed: lower max_tokens")
    if logprobs is not None and (entries := n * most * (1 + logprobs)) > MAX_ROW_LOGPROBS:
        yield _violation(
            "logprobs",
            f"with n {n} and max_tokens {most} makes {n} x {most} x {1 + logprobs} = {entries} entries; at most "
            f"{MAX_ROW_LOGPROBS} are allowed: set a lower max_tokens, or lower logprobs",
        )


def _check_schema(values: Effective) -> Iterator[FieldViolation]:
    if values.get("json_schema") is None:
        return
    for name in ("min_tokens", "ignore_eos"):
        if values.get(name):
            yield _violation(
                name, "does not go with json_schema: such an answer ends where its document does; remove it"
            )


def _violation(name: str, problem: str) -> FieldViolation:
    return FieldViolation(f"sampling.{name}", f"{name} {problem}")

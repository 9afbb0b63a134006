"""What a model answered beside its text, as clients see it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tidemill.outputs import Alternative, ClassScore, TokenLogprob, unpack_vector
from tidemill.v1 import row_pb2


def _classes(items: Sequence[ClassScore]) -> list[row_pb2.ClassScore]:
    return [row_pb2.ClassScore(label=item.label, probability=item.probability) for item in items]


def _score(value: float) -> float:
    return value


def _alternatives(items: Sequence[Alternative]) -> list[row_pb2.Alternative]:
    return [
        row_pb2.Alternative(
            text=item.text,
            finish_reason=item.finish_reason,
            output_tokens=item.output_tokens,
            logprobs=_logprobs(item.logprobs or ()),
        )
        for item in items
    ]


def _logprobs(tokens: Iterable[TokenLogprob]) -> list[row_pb2.TokenLogprob]:
    return [
        row_pb2.TokenLogprob(
            token=item.token,
            logprob=item.logprob,
            top=[row_pb2.TopLogprob(token=top.token, logprob=top.logprob) for top in item.top],
        )
        for item in tokens
    ]


OUTPUT_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "embedding": ("vector", unpack_vector),
    "classes": ("classes", _classes),
    "score": ("score", _score),
    "alternatives": ("alternatives", _alternatives),
    "logprobs": ("logprobs", _logprobs),
}
"""Fields of `RowResult` that are not stored under their own name or in their own form: the column, and its reading."""

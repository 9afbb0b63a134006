"""What a model answered beside its text, as clients see it."""

from collections.abc import Iterable
from typing import Any

from tidemill.outputs import Alternative, Output, TokenLogprob, unpack_vector
from tidemill.v1 import row_pb2


def output_fields(output: Output) -> dict[str, Any]:
    """Fields of a `RowResult`; those that the answer does not have are left out."""
    if output.is_text_alone:
        return {}
    fields: dict[str, Any] = {
        "embedding": output.vector and unpack_vector(output.vector),
        "classes": output.classes
        and [row_pb2.ClassScore(label=item.label, probability=item.probability) for item in output.classes],
        "score": output.score,
        "alternatives": output.alternatives and [_alternative(item) for item in output.alternatives],
        "logprobs": output.logprobs and _logprobs(output.logprobs),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _alternative(item: Alternative) -> row_pb2.Alternative:
    return row_pb2.Alternative(
        text=item.text,
        finish_reason=item.finish_reason,
        output_tokens=item.output_tokens,
        logprobs=_logprobs(item.logprobs or ()),
    )


def _logprobs(tokens: Iterable[TokenLogprob]) -> list[row_pb2.TokenLogprob]:
    return [
        row_pb2.TokenLogprob(
            token=item.token,
            logprob=item.logprob,
            top=[row_pb2.TopLogprob(token=top.token, logprob=top.logprob) for top in item.top],
        )
        for item in tokens
    ]

"""Log probabilities in the two shapes that OpenAI has for them."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tidemill.v1 import row_pb2

# OpenAI's number for a token that cannot be; JSON has no infinity.
_IMPOSSIBLE = -9999.0


def chat_logprobs(tokens: Sequence[row_pb2.TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a chat's choice."""
    content = [{**_entry(item), "top_logprobs": [_entry(top) for top in item.top]} for item in tokens]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[row_pb2.TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a completion's choice. `text_offset` counts characters of the tokens' own texts."""
    return {
        "tokens": [item.token for item in tokens],
        "token_logprobs": [_number(item.logprob) for item in tokens],
        "top_logprobs": [{top.token: _number(top.logprob) for top in item.top} for item in tokens],
        "text_offset": list(accumulate((len(item.token) for item in tokens[:-1]), initial=0)),
    }


def _entry(item: row_pb2.TokenLogprob | row_pb2.TopLogprob) -> dict[str, Any]:
    return {"token": item.token, "logprob": _number(item.logprob), "bytes": list(item.token.encode())}


def _number(logprob: float) -> float:
    return max(logprob, _IMPOSSIBLE)

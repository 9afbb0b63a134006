"""What the fake worker answers to a row: made up of the row's own words, so that tests can say what to expect."""

from typing import Any

from tidemill.encoding import Request, decode_request
from tidemill.outputs import Alternative, ClassScore, Output, TokenLogprob, TopLogprob, pack_vector


def fake_output(row: Any, text: str) -> Output:
    """An answer of the row's kind; `text` is that of a prompt or chat."""
    if row.task in ("prompt", "chat") and b'"sampling"' not in row.request:
        return Output(text)
    request = decode_request(row.request)
    match request.task:
        case "embedding":
            size = request.dimensions or 4
            return Output(vector=pack_vector([float(len(request.text)), *[0.5] * (size - 1)]))
        case "classification":
            return Output(classes=(ClassScore("long", 0.75), ClassScore("short", 0.25)))
        case "score":
            return Output(score=len(request.query) / (len(request.query) + len(request.document)))
        case _:
            return _generated(request, text)


def _generated(request: Request, text: str) -> Output:
    n, wanted = int(str(request.sampling.get("n", 1))), request.sampling.get("logprobs")
    logprobs = _logprobs(text, int(str(wanted))) if wanted is not None else None
    others = tuple(Alternative(f"{text} ({number})", "length", 2, logprobs) for number in range(2, n + 1))
    return Output(text, alternatives=others or None, logprobs=logprobs)


def _logprobs(text: str, count: int) -> tuple[TokenLogprob, ...]:
    top = tuple(TopLogprob(f"t{rank}", -0.5 - rank) for rank in range(count))
    return tuple(TokenLogprob(word, -0.5, top) for word in text.split())

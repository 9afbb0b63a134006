"""From the engine's final output of a prompt or chat to plain data."""

from typing import Any

from services.inference.engine_config import Answer
from services.inference.sampling import RowRefusedError
from tidemill.errors import RowCode
from tidemill.outputs import Alternative, TokenLogprob, TopLogprob

__all__ = ["completion_answer"]


def completion_answer(final: Any, wanted_logprobs: int | None) -> Answer | None:
    """The answer in a vLLM `RequestOutput`; None when it was aborted.

    Args:
        wanted_logprobs: how many likeliest tokens were asked for beside each token; None for no log probabilities.

    Raises:
        RowRefusedError: the engine ended the row for a reason of its own.
    """
    outputs = final.outputs
    if any(output.finish_reason == "abort" for output in outputs):
        return None
    for output in outputs:
        if output.finish_reason not in ("stop", "length"):
            raise RowRefusedError(RowCode.ENGINE_REFUSED, f"the engine ended the row: {output.finish_reason}")
    first, times = outputs[0], final.metrics
    return Answer(
        text=first.text,
        finish_reason=first.finish_reason,
        prompt_tokens=len(final.prompt_token_ids),
        output_tokens=sum(len(output.token_ids) for output in outputs),
        cached_tokens=final.num_cached_tokens or 0,
        queue_seconds=_seconds(times, "queued_ts", "scheduled_ts"),
        prefill_seconds=_seconds(times, "scheduled_ts", "first_token_ts"),
        decode_seconds=_seconds(times, "first_token_ts", "last_token_ts"),
        alternatives=tuple(_alternative(output, wanted_logprobs) for output in outputs[1:]) or None,
        logprobs=_logprobs(first, wanted_logprobs),
    )


def _alternative(output: Any, wanted: int | None) -> Alternative:
    return Alternative(output.text, output.finish_reason, len(output.token_ids), _logprobs(output, wanted))


def _logprobs(output: Any, wanted: int | None) -> tuple[TokenLogprob, ...] | None:
    if wanted is None:
        return None
    return tuple(
        _token(chosen, places, wanted) for chosen, places in zip(output.token_ids, output.logprobs, strict=True)
    )


def _token(chosen: int, places: Any, wanted: int) -> TokenLogprob:
    """`places` maps token ids to what vLLM says of them: the chosen one and the likeliest, in any order."""
    likeliest = sorted(places.values(), key=lambda item: item.rank)[:wanted]
    own = places[chosen]
    return TokenLogprob(
        own.decoded_token or "",
        own.logprob,
        tuple(TopLogprob(item.decoded_token or "", item.logprob) for item in likeliest),
    )


def _seconds(times: Any, start: str, end: str) -> float | None:
    first, last = getattr(times, start, 0.0), getattr(times, end, 0.0)
    return last - first if first and last else None

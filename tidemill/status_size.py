"""Errors cut to what the trailers of a call hold: 8 KiB by default (`grpc.max_metadata_size`).

A client answers larger trailers with an error of its own, and the reason is lost. Texts of a caller, megabytes long or
a hundred rows of them, end up in messages, so the cut is made once, where an error becomes a status.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from tidemill.errors import FieldViolation, TidemillError

__all__ = ["fitting"]

_MESSAGE_BYTES = 1024
_VALUE_BYTES = 512
_METADATA_BYTES = 1536
_VIOLATIONS_BYTES = 2048
_CUT = " ..."


def fitting(error: TidemillError) -> TidemillError:
    """The same error, long texts cut and violations left out from the end until it fits."""
    return TidemillError(
        error.reason,
        _shortened(error.message, _MESSAGE_BYTES),
        metadata=dict(_metadata(error.metadata)),
        retry_after=error.retry_after,
        violations=list(_violations(error.violations)),
    )


def _metadata(metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    room = _METADATA_BYTES
    for key, value in metadata.items():
        text = _shortened(value, min(_VALUE_BYTES, max(room, len(_CUT))))
        room -= sum(map(_cost, text))
        yield key, text


def _violations(violations: Sequence[FieldViolation]) -> Iterator[FieldViolation]:
    room = _VIOLATIONS_BYTES
    for number, item in enumerate(violations):
        cut = FieldViolation(_shortened(item.field, _VALUE_BYTES), _shortened(item.description, _VALUE_BYTES))
        room -= sum(map(_cost, cut.field + cut.description)) + 8
        if room < 0:
            yield FieldViolation("", f"and {len(violations) - number} more")
            return
        yield cut


def _shortened(text: str, most: int) -> str:
    """The beginning of `text` that takes at most `most` bytes percent-encoded, as gRPC sends messages."""
    # Every sign takes a byte or more, so what is behind `most` of them need not be looked at.
    start = text[: most + 1].encode(errors="replace").decode()
    costs = list(accumulate(map(_cost, start)))
    if not costs or costs[-1] <= most:
        return start
    return start[: bisect_right(costs, most - len(_CUT))] + _CUT


def _cost(sign: str) -> int:
    return 1 if " " <= sign <= "~" and sign != "%" else 3 * len(sign.encode())

"""Rows from what a Python program has at hand: strings, dictionaries, `Row` messages."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tidemill.client.parameters import FieldError
from tidemill.client.requests import parse_request
from tidemill.errors import FieldViolation, Reason, RowCode, RowsRefusedError, TidemillError
from tidemill.v1 import row_pb2

RowLike = str | Mapping[str, Any] | row_pb2.Row
"""A prompt; or `{"prompt": ...}` or `{"messages": [...]}` with optional `custom_id` and sampling keys; or
`{"embed": ...}` with optional `dimensions`, `{"classify": ...}`, `{"query": ..., "document": ...}`; or a batch request
`{"custom_id", "method", "url", "body"}`; or the protobuf message."""


def to_rows(items: Iterable[RowLike]) -> Iterator[row_pb2.Row]:
    """`items` as messages, see `to_row`."""
    return (to_row(item, index) for index, item in enumerate(items))


def to_row(item: RowLike, index: int) -> row_pb2.Row:
    """Item `index`, from 0, as a message; without an id it is called `row-N`, N counting from 1.

    Raises RowsRefusedError, which names the field.
    """
    if isinstance(item, row_pb2.Row):
        return item
    fields = {"prompt": item} if isinstance(item, str) else item
    try:
        return parse_request(fields, f"row-{index + 1}").row
    except FieldError as exc:
        raise refused_row(index, exc) from None


def refused_row(index: int, error: FieldError, place: str = "") -> TidemillError:
    """The error for row `index`; `place` says where the wrong value came from, if that is not plain."""
    field = f"rows[{index}].{error.key}" if error.key else f"rows[{index}]"
    reason = Reason.INVALID_ROWS if error.reason is Reason.INVALID_ARGUMENT else error.reason
    return RowsRefusedError(
        reason,
        f"{field}{place} {error.problem}",
        metadata={"row_index": index},
        violations=[FieldViolation(field, error.problem)],
        row_errors=[row_pb2.RowError(index=index, code=_code(reason), field=error.key, message=error.problem)],
    )


def _code(reason: Reason) -> RowCode:
    return RowCode.UNSUPPORTED_PARAMETER if reason is Reason.UNSUPPORTED_PARAMETER else RowCode.INPUT_INVALID

"""Rows from what a Python program has at hand: strings, dictionaries, `Row` messages."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tidemill.client.parameters import FieldError
from tidemill.client.requests import parse_request
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.v1 import row_pb2

RowLike = str | Mapping[str, Any] | row_pb2.Row
"""A prompt; or `{"prompt": ...}` or `{"messages": [...]}` with optional `custom_id` and sampling keys; or
`{"embed": ...}` with optional `dimensions`, `{"classify": ...}`, `{"query": ..., "document": ...}`; or a batch request
`{"custom_id", "method", "url", "body"}`; or the protobuf message."""


def to_rows(items: Iterable[RowLike]) -> Iterator[row_pb2.Row]:
    """`items` as messages; one without an id is called `row-N`, N counting from 1. Raises INVALID_ROWS."""
    for index, item in enumerate(items):
        if isinstance(item, row_pb2.Row):
            yield item
            continue
        fields = {"prompt": item} if isinstance(item, str) else item
        try:
            yield parse_request(fields, f"row-{index + 1}").row
        except FieldError as exc:
            raise _refusal(index, exc) from None


def _refusal(index: int, error: FieldError) -> TidemillError:
    field = f"rows[{index}].{error.key}" if error.key else f"rows[{index}]"
    reason = Reason.INVALID_ROWS if error.reason is Reason.INVALID_ARGUMENT else error.reason
    return TidemillError(
        reason,
        f"{field} {error.problem}",
        metadata={"row_index": index},
        violations=[FieldViolation(field, error.problem)],
    )

"""Rows that are sent again with other content than they were stored with."""

from collections.abc import Sequence

from services.gateway.frames import Prepared, Refusal
from services.gateway.limits import MAX_ROW_ERRORS
from tidemill.errors import Reason
from tidemill.v1 import row_pb2

_MESSAGE = "the row differs from the one stored under this index; stored rows never change"


def refuse_changed(batch: Prepared, positions: Sequence[int]) -> Refusal | None:
    """The refusal of a frame whose rows at `positions` differ from what is stored; None when none do."""
    if not positions:
        return None
    rows = [batch.rows[position] for position in positions]
    message = (
        f"{len(rows)} of {len(batch.rows)} rows differ from what is stored, the first is row {rows[0].row_index} "
        f"({rows[0].custom_id[:64]!r}): stored rows never change, so send them as before or create another job"
    )
    errors = [
        row_pb2.RowError(
            index=row.row_index,
            custom_id=row.custom_id[:64],
            code=Reason.ROW_CONTENT_MISMATCH,
            message=_MESSAGE,
        )
        for row in rows[:MAX_ROW_ERRORS]
    ]
    return Refusal(Reason.ROW_CONTENT_MISMATCH, message, errors)

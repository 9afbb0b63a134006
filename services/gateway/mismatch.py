"""Rows that are sent again: they must be those that were stored."""

import asyncio
from collections.abc import Sequence

from services.gateway.frames import Frame, FrameChecker, Refusal
from services.gateway.input_segments import StoredRows
from services.gateway.limits import MAX_ROW_ERRORS
from services.gateway.prepared import Prepared
from services.gateway.row_fields import shown_custom_id
from tidemill.errors import Reason
from tidemill.v1 import row_pb2

_MESSAGE = "the row differs from the one stored under this index; stored rows never change"


async def compare(checker: FrameChecker, stored: StoredRows, frame: Frame) -> Refusal | None:
    """Compare a frame of durable rows with what is stored, row by row; None when they are the same."""
    prepared = await asyncio.to_thread(checker.prepare, frame)
    if isinstance(prepared, Refusal):
        return prepared
    return _refuse_changed(prepared, await stored.differing(prepared))


def _refuse_changed(batch: Prepared, positions: Sequence[int]) -> Refusal | None:
    if not positions:
        return None
    first = positions[0]
    message = (
        f"{len(positions)} of {len(batch)} rows differ from what is stored, the first is row {batch.start + first} "
        f"({shown_custom_id(batch.custom_ids[first])!r}): stored rows never change, so send them as before or create "
        "another job"
    )
    errors = [
        row_pb2.RowError(
            index=batch.start + position,
            custom_id=shown_custom_id(batch.custom_ids[position]),
            code=Reason.ROW_CONTENT_MISMATCH,
            message=_MESSAGE,
        )
        for position in positions[:MAX_ROW_ERRORS]
    ]
    return Refusal(Reason.ROW_CONTENT_MISMATCH, message, errors)

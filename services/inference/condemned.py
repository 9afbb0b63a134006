"""Rows that are not run any more: each killed the engine while it was alone in it."""

from collections.abc import Sequence
from typing import Any

from services.inference.answers import Origin, error_row
from services.inference.source import Piece, read_rows, slices_of
from tidemill import rowset, segments
from tidemill.errors import RowCode
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.store import ObjectStore
from tidemill.v1 import row_pb2

__all__ = ["condemned_rows", "condemned_table"]

_ROWS_A_READ = 4096
_MESSAGE = (
    "the engine died each time it ran this row with nothing beside it, so the row is not run any more: "
    "look at its prompt and sampling values (a very long or unusual prompt, an extreme value), see the log of the "
    "inference service for the engine's last words, and send the row again once it is changed or the engine is mended"
)


def condemned_rows(lease: pb.Lease) -> int:
    """The condemned rows of a lease that have no result yet, as a set within the chunk."""
    return rowset.from_bytes(lease.condemned_bitmap) & ~rowset.from_bytes(lease.done_bitmap)


def condemned_table(store: ObjectStore, lease: pb.Lease) -> Any | None:
    """Results that say why these rows have no answer, as a table of `segments.RESULT_SCHEMA`; None for no such rows.

    Raises:
        TidemillError: the input cannot be read.
    """
    rows = condemned_rows(lease)
    if not rows:
        return None
    # No weights answered and no engine stands for the result, as with rows that are given up.
    origin = Origin(lease.attempt, lease.chunk_start, "", "")
    inputs = (row for item in slices_of(lease, rows, _ROWS_A_READ) for row in _rows(store, item.pieces))
    return segments.result_table(
        [error_row(row, row_pb2.ROW_STATUS_FAILED, RowCode.WORKER_CRASHED.value, _MESSAGE, origin) for row in inputs]
    )


def _rows(store: ObjectStore, pieces: Sequence[Piece]) -> Sequence[segments.InputRow]:
    return [row for piece in pieces for row in segments.input_rows(read_rows(store, piece))]

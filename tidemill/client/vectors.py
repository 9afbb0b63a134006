"""Embeddings as NumPy arrays. NumPy is not a dependency of the client: install it to call this."""

from collections.abc import Iterable
from typing import Any

from tidemill.client.optional import require
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import row_pb2

EMBEDDING_FIELDS = ("embedding", "error_code", "error_message")
"""What of a result is looked at here."""


def vector(result: row_pb2.RowResult) -> Any:
    """The row's embedding as a float32 array of shape `(dimensions,)`; INVALID_ARGUMENT for a row without one."""
    np = require("numpy", "embeddings as arrays")

    if not result.embedding:
        why = f"{result.error_code}: {result.error_message}" if result.error_code else "it is of another kind"
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"row {result.row_index} ({result.custom_id!r}) has no embedding: {why}",
            metadata={"row_index": result.row_index, "custom_id": result.custom_id, "code": result.error_code},
        )
    return np.array(result.embedding, dtype=np.float32)


def vectors(results: Iterable[row_pb2.RowResult]) -> Any:
    """The embeddings of rows in the order given, as a float32 array of shape `(rows, dimensions)`.

    Raises INVALID_ARGUMENT for a row without an embedding, for no rows, and for vectors of several lengths.
    """
    np = require("numpy", "embeddings as arrays")

    rows = [vector(result) for result in results]
    if len({len(row) for row in rows}) != 1:
        lengths = ", ".join(str(size) for size in sorted({len(row) for row in rows})) or "none"
        raise TidemillError(Reason.INVALID_ARGUMENT, f"rows of one length are needed; these have: {lengths}")
    return np.stack(rows)

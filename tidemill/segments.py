"""Segments: Parquet files of input rows or result rows. One row group is one read."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.errors import Reason, TidemillError
from tidemill.store import ObjectStore, StoredFile

ROW_GROUP_ROWS = 1024
_COMPRESSION = "zstd"

_pa = cast("Any", pa)
_pq = cast("Any", pq)

INPUT_SCHEMA: Any = _pa.schema(
    [
        _pa.field("row_index", _pa.int64(), nullable=False),
        _pa.field("custom_id", _pa.string(), nullable=False),
        _pa.field("task", _pa.string(), nullable=False),
        _pa.field("request", _pa.binary(), nullable=False),
        _pa.field("digest", _pa.binary(32), nullable=False),
    ]
)

RESULT_SCHEMA: Any = _pa.schema(
    [
        _pa.field("row_index", _pa.int64(), nullable=False),
        _pa.field("custom_id", _pa.string(), nullable=False),
        _pa.field("status", _pa.int8(), nullable=False),
        _pa.field("text", _pa.large_string()),
        _pa.field("finish_reason", _pa.string(), nullable=False),
        _pa.field("prompt_tokens", _pa.int64(), nullable=False),
        _pa.field("output_tokens", _pa.int64(), nullable=False),
        _pa.field("cached_tokens", _pa.int64(), nullable=False),
        _pa.field("queue_seconds", _pa.float64()),
        _pa.field("prefill_seconds", _pa.float64()),
        _pa.field("decode_seconds", _pa.float64()),
        _pa.field("attempt", _pa.int32(), nullable=False),
        _pa.field("error_code", _pa.string(), nullable=False),
        _pa.field("error_message", _pa.string(), nullable=False),
        _pa.field("request_digest", _pa.binary(32), nullable=False),
        _pa.field("output_digest", _pa.binary(32), nullable=False),
        _pa.field("chunk_start", _pa.int64(), nullable=False),
        _pa.field("model_digest", _pa.string(), nullable=False),
        _pa.field("engine_build", _pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class InputRow:
    """A stored row: its index in the job, the caller's key, `prompt` or `chat`, the encoded request and the digest of
    key and request."""

    row_index: int
    custom_id: str
    task: str
    request: bytes
    digest: bytes


@dataclass(frozen=True)
class ResultRow:
    """A row's outcome.

    `status` is the number of a `RowStatus`; `text` is None unless it succeeded; times are seconds, None where the
    engine reports none; digests are 32 bytes, see `tidemill.digests`.
    """

    row_index: int
    custom_id: str
    status: int
    text: str | None
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    queue_seconds: float | None
    prefill_seconds: float | None
    decode_seconds: float | None
    attempt: int
    error_code: str
    error_message: str
    request_digest: bytes
    output_digest: bytes
    chunk_start: int
    model_digest: str
    engine_build: str


def input_table(rows: Sequence[InputRow]) -> Any:
    """Rows as an Arrow table of `INPUT_SCHEMA`."""
    return _table(rows, INPUT_SCHEMA)


def result_table(rows: Sequence[ResultRow]) -> Any:
    """Rows as an Arrow table of `RESULT_SCHEMA`."""
    return _table(rows, RESULT_SCHEMA)


def _table(rows: Sequence[object], schema: Any) -> Any:
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
    return _pa.table(columns, schema=schema)


def write_segment(store: ObjectStore, key: str, table: Any) -> StoredFile:
    """Write a table as one segment."""
    buffer = io.BytesIO()
    _pq.write_table(table, buffer, compression=_COMPRESSION, row_group_size=ROW_GROUP_ROWS, store_schema=False)
    return store.put(key, buffer.getvalue())


def read_segment(
    store: ObjectStore, key: str, *, sha256: bytes | None = None, columns: Sequence[str] | None = None
) -> Any:
    """A whole segment as an Arrow table; DATA_CORRUPT when it is missing, changed or not Parquet."""
    data = store.get(key, sha256)
    try:
        return _pq.read_table(io.BytesIO(data), columns=list(columns) if columns else None)
    except _pa.ArrowInvalid as exc:
        raise _corrupt(key, exc) from exc


def read_batches(store: ObjectStore, key: str, *, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """A segment's row groups as Arrow tables, one in memory at a time."""
    if not store.exists(key):
        raise TidemillError(Reason.DATA_CORRUPT, f"{key} is missing from the object store", metadata={"key": key})
    try:
        with _pq.ParquetFile(str(store.path(key))) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(columns) if columns else None)
    except _pa.ArrowInvalid as exc:
        raise _corrupt(key, exc) from exc


def input_rows(table: Any) -> Iterator[InputRow]:
    """The rows of an input table with all columns."""
    return (InputRow(**row) for row in _rows(table, INPUT_SCHEMA))


def result_rows(table: Any) -> Iterator[ResultRow]:
    """The rows of a result table with all columns."""
    return (ResultRow(**row) for row in _rows(table, RESULT_SCHEMA))


def _rows(table: Any, schema: Any) -> Iterable[dict[str, Any]]:
    return table.select(schema.names).to_pylist()


def _corrupt(key: str, exc: Exception) -> TidemillError:
    return TidemillError(Reason.DATA_CORRUPT, f"{key} is not a readable segment: {exc}", metadata={"key": key})

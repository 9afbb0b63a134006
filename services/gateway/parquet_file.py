"""A Parquet file of strangers: everything that its footer declares is bounded before anything is unpacked."""

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.client.tables import table_rows
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import row_pb2

MAX_FOOTER_BYTES = 16 << 20
MAX_COLUMNS = 64
MAX_ROW_GROUPS = 65_536
MAX_ROWS = 100_000_000
# Of one column in one row group: compression may hide a thousandfold.
MAX_CHUNK_BYTES = 256 << 20
MAX_GROUP_BYTES = 512 << 20
MAX_CHUNK_VALUES = 64 << 20
_MAX_ITEMS = 4_000_000
_BATCH_ROWS = 64
_READ_BYTES = 1 << 20
_REQUEST_COLUMNS = ("method", "url", "body")

_pa, _pq = cast("Any", pa), cast("Any", pq)


def parquet_rows(file: BinaryIO, name: str) -> Iterator[row_pb2.Row]:
    """The rows of `file`; INVALID_FILE or INVALID_ROWS.

    Dictionaries can still unfold to more than is declared, so run this where memory has a limit.
    """
    try:
        yield from _rows(file, name)
    except (_pa.ArrowException, OSError) as exc:
        raise _invalid(name, f"is not Parquet that can be read: {str(exc)[:300]}") from exc


def _rows(file: BinaryIO, name: str) -> Iterator[row_pb2.Row]:
    _check_footer(file, name)
    limits = {"thrift_string_size_limit": MAX_FOOTER_BYTES, "thrift_container_size_limit": _MAX_ITEMS}
    parquet = _pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False, **limits)
    _check_metadata(parquet.metadata, name)
    schema = parquet.schema_arrow
    for column in _REQUEST_COLUMNS:
        if column in schema.names:
            raise _invalid(name, f"has a column {column!r}: batch requests belong into JSONL, a table has plain rows")
    batches = parquet.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
    yield from table_rows(_pa.RecordBatchReader.from_batches(schema, batches), None)


def _check_footer(file: BinaryIO, name: str) -> None:
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    file.seek(0)
    if size < 12 or tail[4:] != b"PAR1":
        raise _invalid(name, "is not Parquet, or is encrypted or cut off")
    footer = int.from_bytes(tail[:4], "little")
    if footer > min(size - 12, MAX_FOOTER_BYTES):
        raise _too_much(name, "footer", footer, min(size - 12, MAX_FOOTER_BYTES), "bytes")


def _check_metadata(metadata: Any, name: str) -> None:
    for what, found, most in (
        ("file", metadata.num_columns, MAX_COLUMNS),
        ("file", metadata.num_row_groups, MAX_ROW_GROUPS),
        ("file", metadata.num_rows, MAX_ROWS),
    ):
        if found > most:
            raise _too_much(name, what, found, most, "columns, row groups or rows")
    if not metadata.num_rows:
        raise _invalid(name, "has no rows")
    for number in range(metadata.num_row_groups):
        _check_group(metadata.row_group(number), f"row group {number}", name)


def _check_group(group: Any, what: str, name: str) -> None:
    chunks = [group.column(number) for number in range(group.num_columns)]
    sizes = [chunk.total_uncompressed_size for chunk in chunks]
    # What is declared of the whole may be less than what its parts declare.
    if (total := max(group.total_byte_size, sum(sizes))) > MAX_GROUP_BYTES or min(sizes, default=0) < 0:
        raise _too_much(name, what, total, MAX_GROUP_BYTES, "unpacked bytes")
    for chunk in chunks:
        column = f"column {chunk.path_in_schema[:64]!r} of {what}"
        if chunk.total_uncompressed_size > MAX_CHUNK_BYTES:
            raise _too_much(name, column, chunk.total_uncompressed_size, MAX_CHUNK_BYTES, "unpacked bytes")
        if chunk.num_values > MAX_CHUNK_VALUES:
            raise _too_much(name, column, chunk.num_values, MAX_CHUNK_VALUES, "values")


def _too_much(name: str, what: str, found: int, most: int, unit: str) -> TidemillError:
    return _invalid(name, f"is too large to be read: its {what} has {found} {unit}, at most {most} are allowed")


def _invalid(name: str, problem: str) -> TidemillError:
    return TidemillError(Reason.INVALID_FILE, f"{name} {problem}", metadata={"file": name})

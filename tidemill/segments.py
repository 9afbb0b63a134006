"""Segments: Parquet files of input rows or result rows. One row group is one read."""

import contextlib
import io
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.errors import Reason, TidemillError
from tidemill.output_columns import OUTPUT_FIELDS, build_column, read_column
from tidemill.outputs import Alternative, ClassScore, Output, TokenLogprob
from tidemill.store import ObjectStore, StoredFile

ROW_GROUP_ROWS = 1024
# A group is what readers hold in memory; rows with long vectors or log probabilities get smaller ones.
_ROW_GROUP_BYTES = 16 << 20
_COMPRESSION = "zstd"
# Columns of few different values. A dictionary of texts and digests, which differ, would be built and thrown away.
_REPEATING = ("task", "status", "finish_reason", "error_code", "model_digest", "engine_build", "engine_record")

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

_ENGINE_RECORD: Any = _pa.field("engine_record", _pa.string(), nullable=False)

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
        _ENGINE_RECORD,
        *OUTPUT_FIELDS,
    ]
)
_OUTPUT_NAMES = tuple(item.name for item in OUTPUT_FIELDS)


@dataclass(frozen=True)
class InputRow:
    """A stored row: its index in the job, the caller's key, its kind (a `tidemill.encoding.Task`), the encoded request
    and the digest of key and request."""

    row_index: int
    custom_id: str
    task: str
    request: bytes
    digest: bytes


@dataclass(frozen=True)
class ResultRow:
    """A row's outcome.

    `status` is the number of a `RowStatus`; `text` and the last five fields are those of `tidemill.outputs.Output`, all
    None unless the row succeeded; times are seconds, None where the engine reports none; digests are 32 bytes.
    `output_digest` is `Output.digest` or `tidemill.digests.error_digest`. `engine_record` is hex, see
    `tidemill.engine_record`; empty where no engine saw the row.
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
    engine_record: str = ""
    vector: bytes | None = None
    classes: tuple[ClassScore, ...] | None = None
    score: float | None = None
    alternatives: tuple[Alternative, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def output(self) -> Output:
        """What the model answered."""
        return Output(self.text, self.vector, self.classes, self.score, self.alternatives, self.logprobs)


def input_table(rows: Sequence[InputRow]) -> Any:
    """Rows as an Arrow table of `INPUT_SCHEMA`."""
    return _table(rows, INPUT_SCHEMA)


def input_columns_table(
    start: int, custom_ids: Sequence[str], tasks: Sequence[str], requests: Sequence[bytes], digests: Sequence[bytes]
) -> Any:
    """The same from columns of equal length, without an object a row; `start` is the index of the first row."""
    columns = [
        _pa.array(range(start, start + len(custom_ids)), _pa.int64()),
        _pa.array(custom_ids, _pa.string()),
        _pa.array(tasks, _pa.string()),
        _pa.array(requests, _pa.binary()),
        _pa.array(digests, _pa.binary(32)),
    ]
    return _pa.Table.from_arrays(columns, schema=INPUT_SCHEMA)


def result_table(rows: Sequence[ResultRow]) -> Any:
    """Rows as an Arrow table of `RESULT_SCHEMA`."""
    return _table(rows, RESULT_SCHEMA)


def _table(rows: Sequence[object], schema: Any) -> Any:
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in schema.names}
    for name in _OUTPUT_NAMES:
        if name in columns:
            columns[name] = build_column(name, columns[name])
    return _pa.table(columns, schema=schema)


def write_segment(store: ObjectStore, key: str, table: Any) -> StoredFile:
    """Write a table as one segment."""
    buffer = io.BytesIO()
    group = max(1, min(ROW_GROUP_ROWS, table.num_rows * _ROW_GROUP_BYTES // max(1, table.nbytes)))
    _pq.write_table(
        table,
        buffer,
        compression=_COMPRESSION,
        row_group_size=group,
        store_schema=False,
        use_dictionary=[name for name in _REPEATING if name in table.column_names],
        write_statistics=["row_index"],
    )
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


def read_batches(
    store: ObjectStore, key: str, *, sha256: bytes | None = None, columns: Sequence[str] | None = None
) -> Iterator[Any]:
    """A segment's row groups as Arrow tables, one in memory at a time; with `sha256`, the file is checked first.
    Raises as `read_segment` does."""
    if sha256 is not None:
        store.verify(key, sha256)
    with _opened(store, key) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns) if columns else None)


def read_rows(store: ObjectStore, key: str, positions: Sequence[int]) -> Any:
    """The rows at these positions of a segment, rising, as a table with all columns; only row groups with one of them
    are read, and the file's digest is not checked. Raises as `read_segment` does."""
    with _opened(store, key) as file:
        tables, start, wanted = [], 0, list(positions)
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            inside = [position - start for position in wanted if start <= position < end]
            if inside:
                tables.append(file.read_row_group(group).take(inside))
            start = end
        if wanted and wanted[-1] >= start:
            raise _corrupt(key, ValueError(f"it has {start} rows, and row {wanted[-1]} was asked for"))
        return _pa.concat_tables(tables) if tables else INPUT_SCHEMA.empty_table()


@contextlib.contextmanager
def _opened(store: ObjectStore, key: str) -> Generator[Any]:
    try:
        with store.open_input(key) as source, _pq.ParquetFile(source) as file:
            yield file
    except OSError as exc:
        raise (store.unread(key, exc) if store.is_failure(exc) else _corrupt(key, exc)) from exc
    except _pa.ArrowInvalid as exc:
        raise _corrupt(key, exc) from exc


def input_rows(table: Any) -> Iterator[InputRow]:
    """The rows of an input table with all columns."""
    return (InputRow(**row) for row in _rows(table, INPUT_SCHEMA))


def result_rows(table: Any) -> Iterator[ResultRow]:
    """The rows of a result table with all columns."""
    table = with_later_columns(table)
    plain = _pa.schema([item for item in RESULT_SCHEMA if item.name not in _OUTPUT_NAMES])
    for row, output in zip(_rows(table, plain), _output_values(table), strict=True):
        yield ResultRow(**row, **output)


def outputs(table: Any) -> Iterator[Output]:
    """What the rows of a result table answered, made one at a time; needs the columns `text` and those of outputs."""
    table = with_later_columns(table)
    for text, output in zip(table.column("text").to_pylist(), _output_values(table), strict=True):
        yield Output(text, **output)


def with_later_columns(table: Any) -> Any:
    """The table with `engine_record` and each of `tidemill.output_columns`, which files of earlier builds lack."""
    if _ENGINE_RECORD.name not in table.column_names:
        table = table.append_column(_ENGINE_RECORD, _pa.array([""] * table.num_rows, _ENGINE_RECORD.type))
    for item in OUTPUT_FIELDS:
        if item.name not in table.column_names:
            table = table.append_column(item, _pa.nulls(table.num_rows, item.type))
    return table


def _output_values(table: Any) -> Iterator[dict[str, Any]]:
    # Text alone, the common case, pays nothing for what it does not have.
    if all(table.column(name).null_count == table.num_rows for name in _OUTPUT_NAMES):
        return iter([{}] * table.num_rows)
    columns = [read_column(name, table.column(name)) for name in _OUTPUT_NAMES]
    return (dict(zip(_OUTPUT_NAMES, values, strict=True)) for values in zip(*columns, strict=True))


def _rows(table: Any, schema: Any) -> Iterable[dict[str, Any]]:
    return table.select(schema.names).to_pylist()


def _corrupt(key: str, exc: Exception) -> TidemillError:
    return TidemillError(Reason.DATA_CORRUPT, f"{key} is not a readable segment: {exc}", metadata={"key": key})

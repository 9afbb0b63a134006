"""Rows from tables: whatever speaks the Arrow stream protocol (pandas, polars, pyarrow, DuckDB), datasets, Parquet.

pyarrow is imported when a table is read. A batch of 1024 rows is held at a time, as far as the table is not in memory
itself.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from tidemill.client.optional import require
from tidemill.client.parameters import PARAMETERS, RANGES, FieldError
from tidemill.client.rows import refused_row, to_row
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import row_pb2

_BATCH_ROWS = 1024
_USE = "rows from a table"
_INPUTS = ("prompt", "messages", "embed", "dimensions", "classify", "query", "document")
_KEYS = frozenset({"custom_id", "method", "url", "body", *_INPUTS, *PARAMETERS})
_WHOLE = frozenset({"dimensions", *(name for name, allowed in RANGES.items() if allowed.whole)})
# Columns whose values are objects, which a table may hold as JSON text as well.
_OBJECTS = frozenset({"messages", "body"})


@runtime_checkable
class ArrowStream(Protocol):
    """https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html"""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """A capsule with an ArrowArrayStream."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """`pyarrow.dataset.Dataset`, as far as it is needed here."""

    schema: Any

    def scanner(self, **options: Any) -> Any:
        """What reads the dataset."""
        ...


Table = ArrowStream | Dataset


def is_table(source: object) -> bool:
    """Whether `source` has named columns. A series or an array has none: it is an iterable of prompts."""
    if isinstance(source, Dataset) or hasattr(source, "__dataframe__"):
        return True
    named = hasattr(source, "columns") or hasattr(source, "schema") or not isinstance(source, Iterable)
    return isinstance(source, ArrowStream) and named


def table_rows(source: Any, columns: Mapping[str, str] | None) -> Iterator[row_pb2.Row]:
    """The rows of a table; INVALID_ARGUMENT for columns that are missing or unknown."""
    pa = require("pyarrow", _USE)
    if isinstance(source, ArrowStream):
        reader = pa.RecordBatchReader.from_stream(source)
        return _rows(_pick(reader.schema.names, columns), lambda _: reader)
    if isinstance(source, Dataset):
        scan = {"batch_size": _BATCH_ROWS, "batch_readahead": 2, "fragment_readahead": 1}
        picked = _pick(source.schema.names, columns)
        return _rows(picked, lambda names: source.scanner(columns=names, **scan).to_batches())
    kind = type(source).__name__
    raise TidemillError(
        Reason.INVALID_ARGUMENT,
        f"this {kind} has no __arrow_c_stream__; make an Arrow table of it, or update its library",
    )


def parquet_rows(path: Path, columns: Mapping[str, str] | None) -> Iterator[row_pb2.Row]:
    """The rows of a Parquet file."""
    pa, pq = require("pyarrow", _USE), require("pyarrow.parquet", _USE)
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as exc:
        raise TidemillError(Reason.INVALID_FILE, f"{path} is not Parquet that can be read: {exc}") from None
    picked = _pick(file.schema_arrow.names, columns)
    return _rows(picked, lambda names: file.iter_batches(batch_size=_BATCH_ROWS, columns=names))


def _pick(names: list[str], columns: Mapping[str, str] | None) -> dict[str, str]:
    """Column by key of a row."""
    there = ", ".join(names[:20])
    if columns is None:
        if unknown := [name for name in names if name not in _KEYS]:
            _refuse(
                f"column {unknown[0]!r} is not part of a row; say which columns are, such as "
                f'columns={{"prompt": "{unknown[0]}"}} (columns: {there})'
            )
        columns = {name: name for name in names}
    for key, column in columns.items():
        if key not in _KEYS:
            _refuse(f"columns names {key!r}, which is not part of a row; parts are {', '.join(sorted(_KEYS))}")
        if names.count(column) != 1:
            _refuse(f"the table has {names.count(column) or 'no'} columns {column!r} for {key!r} (columns: {there})")
    return dict(columns)


def _refuse(message: str) -> None:
    raise TidemillError(Reason.INVALID_ARGUMENT, message)


def _rows(picked: dict[str, str], read: Any) -> Iterator[row_pb2.Row]:
    index = 0
    wanted = list(dict.fromkeys(picked.values()))
    for batch in read(wanted):
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            for record in batch.select(wanted).slice(start, _BATCH_ROWS).to_pylist():
                yield _row(record, picked, index)
                index += 1


def _row(record: dict[str, Any], picked: dict[str, str], index: int) -> row_pb2.Row:
    try:
        values = {key: _value(key, record[column]) for key, column in picked.items()}
    except FieldError as exc:
        raise refused_row(index, exc, f" (column {picked[exc.key]!r})") from None
    # An empty cell is a key that the row does not have.
    return to_row({key: value for key, value in values.items() if value is not None}, index)


def _value(key: str, value: Any) -> Any:
    """A cell as a row has it: tables have no type for some of what rows have."""
    if key == "custom_id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if key in _WHOLE and isinstance(value, float) and value.is_integer():
        # Whole numbers with a gap between them are floats in pandas.
        return int(value)
    if key in _OBJECTS and isinstance(value, str):
        try:
            return _dense(json.loads(value))
        except ValueError as exc:
            raise FieldError(key, f"is not JSON: {exc}") from None
    return _dense(value) if key in _OBJECTS or key == "json_schema" else value


def _dense(value: Any) -> Any:
    """`value` without the None that Arrow gives to the fields of a struct that a cell does not have."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {key: _dense(item) for key, item in fields.items() if item is not None}
    if isinstance(value, list):
        return [_dense(item) for item in cast("list[Any]", value)]
    return value

"""Rows from whatever a program has: an iterable, a table, or the path of a JSONL or Parquet file."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from tidemill.client import tables
from tidemill.client.jsonl import check_file, open_input, read_lines
from tidemill.client.parameters import FieldError, show
from tidemill.client.rows import RowLike, refused_row, to_row, to_rows
from tidemill.client.tables import Table
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import row_pb2

RowSource = Iterable[RowLike] | Table | str | os.PathLike[str]
"""What `submit` takes: rows one by one; a DataFrame, Arrow table, reader or dataset; or the path of a file.

A string is a path: a single prompt goes into a list.
"""
Columns = Mapping[str, str]
"""Which column has what: `{"prompt": "question", "custom_id": "id"}`. Other columns are left out.

Without it each column has to be called as a key of a row.
"""

_PARQUET = b"PAR1"


def is_lazy(source: object) -> bool:
    """Whether reading `source` is our own work, which may leave the caller's thread: a file or a table."""
    return isinstance(source, str | os.PathLike) or tables.is_table(source)


def open_rows(source: RowSource, *, model: str = "", columns: Columns | None = None) -> Iterator[row_pb2.Row]:
    """The rows of `source` in order. What can be refused before the first row is refused by this call.

    A JSONL file is checked as a whole, so it is read twice. Raises InvalidRequestError; RowsRefusedError names a bad
    row while iterating.
    """
    if isinstance(source, str | os.PathLike):
        return _file_rows(Path(source), model, columns)
    if tables.is_table(source):
        return tables.table_rows(source, columns)
    if isinstance(source, Mapping | bytes | row_pb2.Row) or not isinstance(source, Iterable):
        found = type(cast("Any", source)).__name__
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"rows is an iterable of rows, a table or a file's path, not a {found}; put a single row into a list",
        )
    return to_rows(source) if columns is None else _renamed(source, columns)


def _file_rows(path: Path, model: str, columns: Columns | None) -> Iterator[row_pb2.Row]:
    if path.is_dir():
        remedy = f'pyarrow.dataset.dataset("{path}")'
        raise TidemillError(Reason.INVALID_FILE, f"{path} is a folder; submit its files as one dataset: {remedy}")
    try:
        with open_input(path) as stream:
            parquet = stream.read(len(_PARQUET)) == _PARQUET
    except TidemillError as exc:
        exc.add_note("a string is the path of a file; a single prompt goes into a list: [prompt]")
        raise
    if parquet:
        return tables.parquet_rows(path, columns)
    if columns is not None:
        raise TidemillError(Reason.INVALID_ARGUMENT, "columns is for tables; the lines of a JSONL file have keys")
    check_file(path, model or None)
    return _jsonl_rows(path, model)


def _jsonl_rows(path: Path, model: str) -> Iterator[row_pb2.Row]:
    with open_input(path) as stream:
        for line in read_lines(stream, path.name, model or None):
            yield line.request.row


def _renamed(items: Iterable[RowLike], columns: Columns) -> Iterator[row_pb2.Row]:
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            problem = f"must be an object, since columns are named, not {show(item)}"
            raise refused_row(index, FieldError("", problem))
        for key, column in columns.items():
            if column not in item:
                raise refused_row(index, FieldError(key, f"is missing: the row has no {column!r}"))
        yield to_row({key: item[column] for key, column in columns.items()}, index)

"""Rows from tables and files: the same rows whatever they come in, and refusals that name the column."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.service import Service
from tidemill.client import Client
from tidemill.client.rows import to_rows
from tidemill.client.sources import open_rows
from tidemill.errors import InvalidRequestError, Reason, RowsRefusedError
from tidemill.v1 import row_pb2

RECORDS: list[dict[str, Any]] = [
    {"custom_id": "a", "prompt": "say a", "max_tokens": 5, "temperature": 0.5, "stop": ["x", "y"]},
    {"custom_id": "b", "prompt": "say b", "max_tokens": None, "temperature": None, "stop": None},
    {"custom_id": None, "prompt": "say c", "max_tokens": 7, "temperature": 1.0, "stop": None},
]


class FakePolars:
    """What polars, DuckDB and others show of a table: the Arrow stream and no more."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def parquet(table: Any, folder: Path) -> Path:
    pq.write_table(table, folder / "rows.parquet", row_group_size=2)
    return folder / "rows.parquet"


FORMS: dict[str, Callable[[Any, Path], Any]] = {
    "table": lambda table, folder: table,
    "reader": lambda table, folder: table.to_reader(1),
    "pandas": lambda table, folder: table.to_pandas(),
    "stream": lambda table, folder: FakePolars(table),
    "dataset": lambda table, folder: ds.dataset(parquet(table, folder)),
    "parquet": parquet,
    "parquet as text": lambda table, folder: str(parquet(table, folder)),
}


def expected() -> list[row_pb2.Row]:
    return list(to_rows({key: value for key, value in item.items() if value is not None} for item in RECORDS))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(form: str, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(RECORDS)
    if form == "pandas":
        table = table.drop(["stop"])
        rows = list(open_rows(FORMS[form](table, tmp_path)))
        wanted = expected()
        del wanted[0].sampling.stop[:]
        assert rows == wanted
    else:
        assert list(open_rows(FORMS[form](table, tmp_path))) == expected()


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_mapped_and_others_left_out(form: str, tmp_path: Path) -> None:
    table = pa.table({"id": [7, 8], "question": ["x", "y"], "year": [1999, 2000]})
    source = FORMS[form](table, tmp_path)
    rows = list(open_rows(source, columns={"prompt": "question", "custom_id": "id"}))
    assert [(row.custom_id, row.prompt) for row in rows] == [("7", "x"), ("8", "y")]


def test_chats_come_as_structs_or_as_json(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "short"}, {"role": "user", "content": "hi"}]
    for value in (chat, json.dumps(chat)):
        [row] = open_rows(pa.table({"messages": [value]}))
        assert [message.content for message in row.chat.messages] == ["short", "hi"]
    body = {"messages": chat, "max_tokens": 3}
    request = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    embedding = {"custom_id": "b", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}
    # One struct has the fields of both, null where a request has none.
    rows = list(open_rows(pa.Table.from_pylist([request, embedding])))
    assert rows == list(to_rows([request, embedding]))


def test_texts_may_be_of_any_arrow_type() -> None:
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        table = pa.table({"prompt": pa.array(["a", "b"], kind)})
        assert [row.prompt for row in open_rows(FakePolars(table))] == ["a", "b"]


def test_series_and_arrays_of_texts_are_iterables() -> None:
    assert [row.prompt for row in open_rows(pd.Series(["a", "b"]))] == ["a", "b"]


def test_dictionaries_may_be_renamed_as_well() -> None:
    rows = open_rows([{"q": "x", "n": 1}], columns={"prompt": "q"})
    assert [row.prompt for row in rows] == ["x"]
    with pytest.raises(RowsRefusedError, match=r"rows\[1\].prompt is missing: the row has no 'q'"):
        list(open_rows([{"q": "x"}, {"p": "x"}], columns={"prompt": "q"}))
    with pytest.raises(RowsRefusedError, match="must be an object"):
        list(open_rows(["x"], columns={"prompt": "q"}))


@pytest.mark.parametrize(
    ("table", "columns", "words"),
    [
        ({"question": ["x"]}, None, r"column 'question' is not part of a row.*columns=\{\"prompt\": \"question\"\}"),
        ({"a": ["x"]}, {"prompt": "b"}, r"the table has no columns 'b' for 'prompt' \(columns: a\)"),
        ({"a": ["x"]}, {"promt": "a"}, "columns names 'promt', which is not part of a row; parts are .*prompt"),
    ],
)
def test_wrong_columns_are_refused_before_anything_is_sent(table: Any, columns: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        open_rows(pa.table(table), columns=columns)


@pytest.mark.parametrize(
    ("table", "columns", "words"),
    [
        ({"q": ["x", ""]}, {"prompt": "q"}, r"rows\[1\].prompt is empty"),
        ({"q": ["x", None]}, {"prompt": "q"}, r"rows\[1\].prompt is missing"),
        ({"prompt": ["x", "y"], "max_tokens": [1, 2.5]}, None, r"rows\[1\].max_tokens must be a whole number"),
        ({"m": ["[]", "["]}, {"messages": "m"}, r"rows\[0\].messages is empty"),
        ({"m": ["["]}, {"messages": "m"}, r"rows\[0\].messages \(column 'm'\) is not JSON"),
        ({"prompt": ["x"], "custom_id": [1.5]}, None, r"rows\[0\].custom_id must be a string"),
        ({"prompt": ["x"], "temperature": ["hot"]}, None, r"rows\[0\].temperature must be a number"),
    ],
)
def test_a_bad_cell_is_named(table: Any, columns: Any, words: str) -> None:
    with pytest.raises(RowsRefusedError, match=words) as caught:
        list(open_rows(pa.table(table), columns=columns))
    assert caught.value.row_errors[0].index == int(caught.value.metadata["row_index"])


@pytest.mark.parametrize("source", [7, {"prompt": ["a"]}, b"a", row_pb2.Row(), None])
def test_what_is_no_rows_is_refused(source: Any) -> None:
    with pytest.raises(InvalidRequestError, match="put a single row into a list"):
        open_rows(source)


def test_a_text_is_a_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no such file") as caught:
        open_rows("Once upon a time")
    assert "a single prompt goes into a list" in caught.value.__notes__[0]
    with pytest.raises(InvalidRequestError, match="is a folder"):
        open_rows(tmp_path)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InvalidRequestError, match="not Parquet that can be read") as found:
        open_rows(broken)
    assert found.value.reason is Reason.INVALID_FILE


def test_a_jsonl_file_is_checked_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b", "custom_id": "x"}\n')
    assert [row.custom_id for row in open_rows(path)] == ["row-1", "x"]
    path.write_text('{"prompt": "a"}\n{"prompt": 1}\n')
    with pytest.raises(InvalidRequestError, match="line 2"):
        open_rows(path)
    with pytest.raises(InvalidRequestError, match="columns is for tables"):
        open_rows(path, columns={"prompt": "a"})


def test_a_reader_is_pulled_batch_by_batch() -> None:
    pulled = 0

    def batches() -> Iterator[Any]:
        nonlocal pulled
        for _ in range(100):
            pulled += 1
            yield pa.record_batch({"prompt": ["x"] * 10})

    reader = pa.RecordBatchReader.from_batches(pa.schema([("prompt", pa.string())]), batches())
    rows = open_rows(reader)
    assert pulled == 0
    for _ in range(25):
        next(rows)
    assert pulled <= 4


@given(st.lists(st.tuples(st.text(min_size=1), st.none() | st.integers(1, 9), st.none() | st.floats(0, 2)), min_size=1))
def test_a_table_says_what_its_records_say(cells: list[tuple[str, int | None, float | None]]) -> None:
    records = [{"prompt": prompt, "max_tokens": tokens, "temperature": heat} for prompt, tokens, heat in cells]
    table = pa.Table.from_pylist(records)
    dense = [{key: value for key, value in record.items() if value is not None} for record in records]
    assert list(open_rows(table)) == list(to_rows(dense))
    # pandas turns whole numbers beside a gap into floats.
    assert list(open_rows(table.to_pandas())) == list(to_rows(dense))


def test_a_data_frame_is_answered(service: Service, client: Client) -> None:
    frame = pd.DataFrame({"id": range(1500), "question": [f"say {index}" for index in range(1500)], "year": 1999})
    job = client.submit(frame, model=service.model, columns={"prompt": "question", "custom_id": "id"})
    answers = job.to_pandas()
    assert list(answers["custom_id"]) == [str(index) for index in range(1500)]
    assert list(answers["row_index"]) == list(range(1500))
    assert answers["text"][7] == "answer to 7"

"""Results as Arrow tables: nothing is lost, and they stream."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.client.service import Service
from tidemill.client import Client, TidemillError
from tidemill.client.arrow import BATCH_BYTES, result_batch, result_reader, result_schema
from tidemill.errors import InvalidRequestError, Reason, ServiceUnavailableError
from tidemill.v1 import row_pb2

DONE, FAILED = row_pb2.ROW_STATUS_SUCCEEDED, row_pb2.ROW_STATUS_FAILED
TOKEN = row_pb2.TokenLogprob(token="a", logprob=-0.5, top=[row_pb2.TopLogprob(token="b", logprob=-1)])
RESULTS = [
    row_pb2.RowResult(
        row_index=0, custom_id="t", status=DONE, text="", finish_reason="stop", prompt_tokens=3, attempt=1
    ),
    row_pb2.RowResult(row_index=1, custom_id="e", status=DONE, embedding=[0.5, 1.5], queue_seconds=0),
    row_pb2.RowResult(row_index=2, custom_id="f", status=FAILED, error_code="PROMPT_TOO_LONG", error_message="why"),
    row_pb2.RowResult(
        row_index=3, custom_id="c", status=DONE, classes=[row_pb2.ClassScore(label="x", probability=0.25)]
    ),
    row_pb2.RowResult(row_index=4, custom_id="s", status=DONE, score=0),
    row_pb2.RowResult(
        row_index=5,
        custom_id="n",
        status=DONE,
        text="a",
        logprobs=[TOKEN],
        alternatives=[row_pb2.Alternative(text="b")],
    ),
]


def test_every_field_has_its_column() -> None:
    assert set(result_schema().names) == set(row_pb2.RowResult.DESCRIPTOR.fields_by_name)


def test_values_stay_and_what_is_not_there_is_null() -> None:
    rows = result_batch(RESULTS, result_schema()).to_pylist()
    assert [row["status"] for row in rows] == ["SUCCEEDED", "SUCCEEDED", "FAILED", *["SUCCEEDED"] * 3]
    assert [row["text"] for row in rows] == ["", None, None, None, None, "a"]
    assert [row["embedding"] for row in rows] == [None, [0.5, 1.5], None, None, None, None]
    assert [row["error_code"] for row in rows] == [None, None, "PROMPT_TOO_LONG", None, None, None]
    assert [row["score"] for row in rows] == [None, None, None, None, 0.0, None]
    assert [row["queue_seconds"] for row in rows] == [None, 0.0, None, None, None, None]
    assert [row["prompt_tokens"] for row in rows] == [3, 0, 0, 0, 0, 0]
    assert rows[3]["classes"] == [{"label": "x", "probability": 0.25}]
    assert rows[5]["logprobs"] == [{"token": "a", "logprob": -0.5, "top": [{"token": "b", "logprob": -1.0}]}]
    assert rows[5]["alternatives"][0]["text"] == "b"
    assert rows[5]["alternatives"][0]["logprobs"] == []


def test_no_results_are_an_empty_table() -> None:
    assert result_reader([]).read_all() == result_schema().empty_table()


def test_batches_are_cut_by_rows_and_bytes_and_pulled() -> None:
    pulled = 0

    def results(size: int) -> Iterator[row_pb2.RowResult]:
        nonlocal pulled
        for index in range(3000):
            pulled += 1
            yield row_pb2.RowResult(row_index=index, status=DONE, text="x" * size)

    reader = result_reader(results(1))
    assert reader.read_next_batch().num_rows == 1024
    assert pulled == 1024
    assert [batch.num_rows for batch in reader] == [1024, 952]
    large = result_reader(results(BATCH_BYTES // 4)).read_next_batch()
    assert large.num_rows == 4


def test_an_error_behind_the_reader_is_raised_as_it_is() -> None:
    def results() -> Iterator[row_pb2.RowResult]:
        yield RESULTS[0]
        raise TidemillError(reason, "gone")

    reason = Reason.UNAVAILABLE
    with pytest.raises(ServiceUnavailableError, match="gone"):
        result_reader(results()).read_all()


def test_a_job_s_answers_as_tables(service: Service, client: Client) -> None:
    job = client.submit([f"say {index}" for index in range(2100)], model=service.model)
    table = job.to_arrow()
    assert isinstance(table, pa.Table)
    assert table.column("row_index").to_pylist() == list(range(2100))
    assert table.column("text")[2099].as_py() == "answer to row-2100"
    assert [batch.num_rows for batch in job.arrow_batches("completion")] == [1024, 1024, 52]
    texts = job.to_arrow(["text"])
    assert texts.column_names == ["row_index", "custom_id", "status", "text"]
    assert texts == table.select(texts.column_names)
    [first, *_] = job.results(fields=["text", "prompt_tokens"])
    assert (first.text, first.custom_id, first.engine_build) == ("answer to row-1", "row-1", "")
    assert [item.text for item in job.results(fields=[])] == [""] * 2100
    for wrong in ("text", ["txt"]):
        with pytest.raises(InvalidRequestError):
            list(job.results(fields=wrong))
    frame = job.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame["custom_id"].iloc[-1] == "row-2100"


def test_embeddings_as_one_array(service: Service, client: Client) -> None:
    job = client.submit([{"embed": "x" * length, "dimensions": 3} for length in range(1, 50)], model=service.model)
    array = job.to_numpy()
    assert (array.shape, array.dtype) == ((49, 3), np.float32)
    assert array[:, 0].tolist() == [float(length) for length in range(1, 50)]

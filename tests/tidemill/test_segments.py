"""Segments on a real folder."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stores import folder_store
from tidemill import segments
from tidemill.digests import error_digest, output_digest, row_digest
from tidemill.errors import Reason, TidemillError
from tidemill.store.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return folder_store(tmp_path)


def inputs(count: int) -> list[segments.InputRow]:
    return [
        segments.InputRow(index, f"id-{index}", "prompt", b"{}", row_digest(f"id-{index}", b"{}"))
        for index in range(count)
    ]


def result(index: int, text: str | None) -> segments.ResultRow:
    return segments.ResultRow(
        row_index=index,
        custom_id=f"id-{index}",
        status=1 if text is not None else 2,
        text=text,
        finish_reason="stop" if text is not None else "",
        prompt_tokens=3,
        output_tokens=2,
        cached_tokens=0,
        queue_seconds=0.1,
        prefill_seconds=None,
        decode_seconds=None,
        attempt=1,
        error_code="" if text is not None else "PROMPT_TOO_LONG",
        error_message="",
        request_digest=row_digest(f"id-{index}", b"{}"),
        output_digest=output_digest(text) if text is not None else error_digest("PROMPT_TOO_LONG"),
        chunk_start=0,
        model_digest="00",
        engine_build="vllm",
        engine_record="ab" * 32,
    )


def test_input_rows_round_trip(store: LocalStore) -> None:
    stored = segments.write_segment(store, "in.parquet", segments.input_table(inputs(2500)))
    table = segments.read_segment(store, "in.parquet", sha256=stored.sha256)
    assert list(segments.input_rows(table)) == inputs(2500)


def test_result_rows_round_trip(store: LocalStore) -> None:
    rows = [result(0, "answer"), result(1, None), result(2, "")]
    segments.write_segment(store, "out.parquet", segments.result_table(rows))
    assert list(segments.result_rows(segments.read_segment(store, "out.parquet"))) == rows


def test_results_of_an_earlier_version_are_read(store: LocalStore) -> None:
    rows = [result(0, "answer"), result(1, None)]
    segments.write_segment(store, "old.parquet", segments.result_table(rows).drop_columns(["engine_record"]))
    found = list(segments.result_rows(segments.read_segment(store, "old.parquet")))
    assert found == [replace(row, engine_record="") for row in rows]


def test_a_missing_column_is_not_made_up(store: LocalStore) -> None:
    segments.write_segment(store, "bad.parquet", segments.result_table([result(0, "answer")]).drop_columns(["text"]))
    with pytest.raises(KeyError, match="text"):
        list(segments.result_rows(segments.read_segment(store, "bad.parquet")))


def test_batches_are_row_groups(store: LocalStore) -> None:
    segments.write_segment(store, "in.parquet", segments.input_table(inputs(2500)))
    sizes = [batch.num_rows for batch in segments.read_batches(store, "in.parquet", columns=["digest"])]
    assert sizes == [1024, 1024, 452]


def test_equal_rows_make_equal_files(store: LocalStore) -> None:
    first = segments.write_segment(store, "a.parquet", segments.input_table(inputs(10)))
    second = segments.write_segment(store, "b.parquet", segments.input_table(inputs(10)))
    assert first.sha256 == second.sha256


def test_damaged_and_missing_segments_are_named(store: LocalStore) -> None:
    store.put("bad.parquet", b"PAR1 nonsense")
    for key in ("bad.parquet", "none.parquet"):
        with pytest.raises(TidemillError) as caught:
            segments.read_segment(store, key)
        assert caught.value.reason is Reason.DATA_CORRUPT
        with pytest.raises(TidemillError) as caught:
            list(segments.read_batches(store, key))
        assert caught.value.reason is Reason.DATA_CORRUPT
        assert caught.value.metadata["key"] == key


@given(st.integers(1, 2500), st.data())
@settings(max_examples=25, deadline=None)
def test_rows_are_read_by_their_positions(
    tmp_path_factory: pytest.TempPathFactory, count: int, data: st.DataObject
) -> None:
    store = folder_store(tmp_path_factory.mktemp("store"))
    rows = inputs(count)
    segments.write_segment(store, "in.parquet", segments.input_table(rows))
    wanted = sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=20)))
    table = segments.read_rows(store, "in.parquet", wanted)
    assert list(segments.input_rows(table)) == [rows[position] for position in wanted]


def test_only_row_groups_with_a_wanted_row_are_read(store: LocalStore) -> None:
    segments.write_segment(store, "in.parquet", segments.input_table(inputs(2500)))
    path = store.path("in.parquet")
    with pq.ParquetFile(str(path)) as file:
        second = file.metadata.row_group(1).column(0).data_page_offset
        third = file.metadata.row_group(2).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[second:third] = bytes(third - second)
    path.write_bytes(data)
    assert [row.row_index for row in segments.input_rows(segments.read_rows(store, "in.parquet", [3, 2400]))] == [
        3,
        2400,
    ]
    with pytest.raises(TidemillError) as caught:
        segments.read_rows(store, "in.parquet", [3, 1500])
    assert caught.value.reason is Reason.DATA_CORRUPT


def test_rows_that_a_segment_does_not_have_are_an_error(store: LocalStore) -> None:
    segments.write_segment(store, "in.parquet", segments.input_table(inputs(5)))
    with pytest.raises(TidemillError, match="it has 5 rows, and row 5 was asked for"):
        segments.read_rows(store, "in.parquet", [4, 5])


def test_batches_of_a_changed_segment_are_refused_before_the_first(store: LocalStore) -> None:
    stored = segments.write_segment(store, "in.parquet", segments.input_table(inputs(5)))
    assert sum(table.num_rows for table in segments.read_batches(store, "in.parquet", sha256=stored.sha256)) == 5
    with pytest.raises(TidemillError, match="changed"):
        next(segments.read_batches(store, "in.parquet", sha256=bytes(32)))

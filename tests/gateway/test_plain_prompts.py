"""Frames of plain prompts take a way of their own; it must not show."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import frames
from services.gateway.buffer import RowBuffer
from services.gateway.frames import Frame, FrameChecker, Refusal
from services.gateway.prepared import Prepared
from services.gateway.prompt_length import PromptLengths
from tidemill.crc import rows_crc32c
from tidemill.internal.v1 import records_pb2
from tidemill.segments import InputRow, input_table
from tidemill.store import open_store
from tidemill.v1 import job_service_pb2, model_service_pb2, row_pb2

ids = st.text(max_size=4) | st.text(min_size=60, max_size=70) | st.just("é" * 129)
plain = st.builds(row_pb2.Row, custom_id=ids, prompt=st.text(max_size=20))
other = st.sampled_from(
    [
        row_pb2.Row(custom_id="own", prompt="x", sampling=row_pb2.SamplingParams(max_tokens=3)),
        row_pb2.Row(custom_id="chat", chat=row_pb2.ChatInput(messages=[row_pb2.ChatMessage(role="user", content="é")])),
        row_pb2.Row(custom_id="score", score=row_pb2.ScoreInput(query="a", document="b")),
        row_pb2.Row(custom_id="none"),
    ]
)
rows_of_frames = st.lists(plain, min_size=1, max_size=12) | st.lists(plain | other, min_size=1, max_size=6)
samplings = st.sampled_from([row_pb2.SamplingParams(), row_pb2.SamplingParams(max_tokens=5, n=2, temperature=1)])


def checker_of(folder: Path, sampling: row_pb2.SamplingParams, **fields: object) -> FrameChecker:
    report = records_pb2.ModelReport(model="m", has_chat_template=True, **fields)  # pyright: ignore[reportArgumentType]
    return FrameChecker(PromptLengths(open_store(folder.as_uri())), report, sampling)


def prepare(checker: FrameChecker, rows: Sequence[row_pb2.Row], crc: int | None = None) -> Prepared | Refusal:
    message = job_service_pb2.AppendRowsRequest(rows=rows)
    return checker.prepare(Frame(7, message.rows, message, crc))


@given(rows=rows_of_frames, sampling=samplings)
def test_both_ways_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[row_pb2.Row], sampling: row_pb2.SamplingParams
) -> None:
    checker = checker_of(tmp_path_factory.getbasetemp(), sampling)
    found = prepare(checker, rows, rows_crc32c(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "plain_prompts", lambda _: None)
        assert prepare(checker, rows, rows_crc32c(rows)) == found


@given(rows=st.lists(plain, min_size=1, max_size=4), flips=st.integers(1, 2**32 - 1))
def test_a_damaged_frame_is_refused_on_both_ways(
    tmp_path_factory: pytest.TempPathFactory, rows: list[row_pb2.Row], flips: int
) -> None:
    checker = checker_of(tmp_path_factory.getbasetemp(), row_pb2.SamplingParams())
    found = prepare(checker, rows, rows_crc32c(rows) ^ flips)
    assert isinstance(found, Refusal)
    assert found.reason == "CHECKSUM_MISMATCH"


def test_a_model_that_generates_nothing_refuses_plain_prompts(tmp_path: Path) -> None:
    checker = checker_of(tmp_path, row_pb2.SamplingParams(), tasks=[model_service_pb2.TASK_EMBED])
    found = prepare(checker, [row_pb2.Row(custom_id="a", prompt="x")])
    assert isinstance(found, Refusal)
    assert [item.code for item in found.row_errors] == ["TASK_NOT_SUPPORTED"]


@given(
    batches=st.lists(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=9), min_size=1, max_size=6),
    max_rows=st.integers(1, 12),
    max_bytes=st.integers(1, 200),
)
def test_a_buffer_gives_out_what_it_took_in(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], max_rows: int, max_bytes: int
) -> None:
    checker = checker_of(tmp_path_factory.getbasetemp(), row_pb2.SamplingParams())
    buffer, expected = RowBuffer(max_rows, max_bytes), Prepared(0)
    for batch in batches:
        first = len(expected)
        rows = [row_pb2.Row(custom_id=f"r{first + at}", prompt=text) for at, text in enumerate(batch)]
        message = job_service_pb2.AppendRowsRequest(rows=rows)
        prepared = checker.prepare(Frame(first, message.rows, message))
        assert isinstance(prepared, Prepared)
        buffer.add(prepared)
        expected.extend(prepared)
    found = Prepared(0)
    while len(buffer):
        cut = buffer.cut()
        assert cut.start == len(found)
        assert 1 <= len(cut) <= max_rows
        assert cut.size <= max_bytes or len(cut) == 1
        found.extend(cut)
    assert found == expected
    assert buffer.cut() == Prepared(len(found))


def test_columns_make_the_table_that_rows_make(tmp_path: Path) -> None:
    rows = [row_pb2.Row(custom_id=f"r{index}", prompt="é") for index in range(3)]
    prepared = prepare(checker_of(tmp_path, row_pb2.SamplingParams()), rows)
    assert isinstance(prepared, Prepared)
    columns = zip(prepared.custom_ids, prepared.tasks, prepared.requests, prepared.digests, strict=True)
    assert prepared.table().equals(input_table([InputRow(7 + at, *values) for at, values in enumerate(columns)]))

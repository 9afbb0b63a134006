"""Answers of every kind: their columns and their digests."""

import math
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tidemill.test_segments import result
from tidemill import digests, segments
from tidemill.outputs import Alternative, ClassScore, Output, TokenLogprob, TopLogprob, pack_vector, unpack_vector
from tidemill.store import open_store

text = st.text(st.characters(codec="utf-8"), max_size=20)
float32 = st.floats(width=32, allow_nan=False)
logprob = st.floats(max_value=0, width=32, allow_nan=False)
tops = st.builds(TopLogprob, text, logprob)
tokens = st.lists(st.builds(TokenLogprob, text, logprob, st.lists(tops, max_size=3).map(tuple)), max_size=4).map(tuple)
alternatives = st.lists(
    st.builds(Alternative, text, st.sampled_from(["stop", "length"]), st.integers(0, 9), st.none() | tokens), max_size=3
).map(tuple)
classes = st.lists(st.builds(ClassScore, text, st.floats(0, 1)), max_size=3).map(tuple)
answers = st.one_of(
    st.builds(Output, text=text, alternatives=st.none() | alternatives, logprobs=st.none() | tokens),
    st.builds(Output, vector=st.lists(float32, max_size=9).map(pack_vector)),
    st.builds(Output, classes=classes),
    st.builds(Output, score=st.floats(allow_nan=False)),
)


def stored(index: int, output: Output) -> segments.ResultRow:
    fields = {name: getattr(output, name) for name in ("vector", "classes", "score", "alternatives", "logprobs")}
    return replace(result(index, None), text=output.text, output_digest=output.digest, **fields)


@settings(deadline=None, max_examples=40)
@given(st.lists(answers, max_size=8))
def test_every_answer_comes_back_from_its_columns(outputs: list[Output]) -> None:
    rows = [stored(index, output) for index, output in enumerate(outputs)]
    table = segments.result_table(rows)
    assert table.schema == segments.RESULT_SCHEMA
    assert list(segments.result_rows(table)) == rows
    assert [item.output for item in segments.result_rows(table)] == outputs == list(segments.outputs(table))


@settings(deadline=None, max_examples=10)
@given(st.lists(answers, min_size=1, max_size=8))
def test_every_answer_comes_back_from_a_file(tmp_path_factory: pytest.TempPathFactory, outputs: list[Output]) -> None:
    store = open_store(tmp_path_factory.mktemp("store").as_uri())
    rows = [stored(index, output) for index, output in enumerate(outputs)]
    segments.write_segment(store, "out.parquet", segments.result_table(rows))
    table = segments.read_segment(store, "out.parquet")
    assert list(segments.result_rows(table)) == rows
    assert [output.digest for output in segments.outputs(table)] == [row.output_digest for row in rows]


@given(answers, answers)
def test_other_answers_have_other_digests(first: Output, second: Output) -> None:
    def counted(output: Output) -> Output:
        """What the digest leaves out made equal."""
        none = tuple(replace(item, finish_reason="", output_tokens=0) for item in output.alternatives or ())
        return replace(output, alternatives=none or None)

    assert first.digest != second.digest or counted(first) == counted(second)


def test_the_digest_of_a_text_alone_is_as_ever() -> None:
    assert Output("text").digest == digests.output_digest("text")
    assert Output().digest == digests.output_digest("")


def test_digests_are_fixed() -> None:
    top = (TokenLogprob("a", -0.5, (TopLogprob("a", -0.5), TopLogprob("b", -math.inf))),)
    assert (
        Output(vector=pack_vector([1, -0.5])).digest.hex()
        == "bca6124cc2a60f4cedae03929e4b33ffb31c6f85b9f75f2a55945db4661650d0"
    )
    assert (
        Output(classes=(ClassScore("x", 0.75),)).digest.hex()
        == "93cb31c7d53694732df59d63f46d177247e56ba2bf8e845bdc519df1d27e2dfa"
    )
    assert Output(score=0.25).digest.hex() == "7c0fceb00056059d784d1ac9a7bdff3c2ea30e9cdba3ccdbf4d46d2dac68dc34"
    assert (
        Output("t", logprobs=top, alternatives=(Alternative("u", "stop", 1, top),)).digest.hex()
        == "1e0a024413f5270cb015e2918a72c57486da611b5d8daa33217973f27d30f9b8"
    )


@given(st.lists(float32))
def test_vectors_are_packed_as_float32(values: list[float]) -> None:
    assert list(unpack_vector(pack_vector(values))) == values
    assert pack_vector(values) == b"".join(struct.pack("<f", value) for value in values)


def test_files_of_earlier_builds_read(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    rows = [result(0, "answer"), result(1, None)]
    names = ["vector", "classes", "score", "alternatives", "logprobs"]
    segments.write_segment(store, "old.parquet", segments.result_table(rows).drop_columns(names))
    table = segments.read_segment(store, "old.parquet")
    assert list(segments.result_rows(table)) == rows
    assert [output.text for output in segments.outputs(table)] == ["answer", None]


def test_rows_with_long_vectors_get_small_groups(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    rows = [stored(index, Output(vector=bytes(4 << 18))) for index in range(40)]
    segments.write_segment(store, "out.parquet", segments.result_table(rows))
    assert all(group.nbytes <= 17 << 20 for group in segments.read_batches(store, "out.parquet"))

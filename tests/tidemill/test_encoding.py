"""The stored encoding of requests."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.encoding import (
    Message,
    decode_request,
    decode_row,
    encode_request,
    encode_spec,
    merge_sampling,
    sampling_values,
)
from tidemill.v1 import row_pb2

text = st.text(max_size=50)
sampling = st.builds(
    row_pb2.SamplingParams,
    temperature=st.none() | st.floats(min_value=0, max_value=2),
    top_k=st.none() | st.integers(min_value=1, max_value=1000),
    max_tokens=st.none() | st.integers(min_value=1, max_value=4096),
    seed=st.none() | st.integers(min_value=0, max_value=2**63 - 1),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=3),
    n=st.none() | st.integers(min_value=1, max_value=16),
    logprobs=st.none() | st.integers(min_value=0, max_value=20),
    min_tokens=st.none() | st.integers(min_value=0, max_value=9),
    ignore_eos=st.none() | st.booleans(),
    json_schema=st.none() | st.just('{"type": "object"}'),
)
pooled = st.one_of(
    st.builds(
        row_pb2.Row,
        embedding=st.builds(row_pb2.EmbeddingInput, text=text, dimensions=st.none() | st.integers(1, 65_536)),
    ),
    st.builds(row_pb2.Row, classification=st.builds(row_pb2.ClassificationInput, text=text)),
    st.builds(row_pb2.Row, score=st.builds(row_pb2.ScoreInput, query=text, document=text)),
)
prompts = st.builds(row_pb2.Row, prompt=text.filter(bool), sampling=sampling)
chats = st.builds(
    row_pb2.Row,
    chat=st.builds(
        row_pb2.ChatInput,
        messages=st.lists(st.builds(row_pb2.ChatMessage, role=st.just("user"), content=text), min_size=1, max_size=3),
    ),
    sampling=sampling,
)


@given(prompts | chats)
def test_requests_round_trip(row: row_pb2.Row) -> None:
    request = decode_request(encode_request(row))
    assert request.task == row.WhichOneof("input")
    assert request.prompt == row.prompt
    assert request.messages == tuple(Message(item.role, item.content) for item in row.chat.messages)
    assert request.sampling == sampling_values(row.sampling)
    assert {type(value) for value in request.sampling.values()} <= {bool, int, float, str, list}


@given(pooled)
def test_requests_without_generation_round_trip(row: row_pb2.Row) -> None:
    request = decode_request(encode_request(row))
    assert request.task == row.WhichOneof("input")
    assert (request.text or "") == (row.embedding.text or row.classification.text)
    assert request.dimensions == (row.embedding.dimensions if row.embedding.HasField("dimensions") else None)
    assert (request.query, request.document) == (row.score.query, row.score.document)
    assert not request.sampling


@given(prompts | chats | pooled)
def test_a_row_comes_back_from_its_bytes(row: row_pb2.Row) -> None:
    back = decode_row("mine", encode_request(row))
    assert back.custom_id == "mine"
    assert back.WhichOneof("input") == row.WhichOneof("input")
    assert encode_request(back) == encode_request(row)


@given(prompts | chats | pooled)
def test_encoding_depends_on_content_alone(row: row_pb2.Row) -> None:
    copy = row_pb2.Row.FromString(row.SerializeToString())
    copy.custom_id = "another"
    assert encode_request(copy) == encode_request(row)


def test_the_encoding_of_a_row_is_fixed() -> None:
    row = row_pb2.Row(prompt="caf\u00e9\n", sampling=row_pb2.SamplingParams(temperature=1, top_k=3, stop=["x"]))
    expected = '{"prompt":"caf\u00e9\\n","sampling":{"stop":["x"],"temperature":1.0,"top_k":3},"task":"prompt","v":1}'
    assert encode_request(row) == expected.encode()


def test_the_encoding_of_the_other_kinds_is_fixed() -> None:
    cut = row_pb2.Row(embedding=row_pb2.EmbeddingInput(text="a", dimensions=8))
    assert encode_request(cut) == b'{"dimensions":8,"task":"embedding","text":"a","v":1}'
    label = row_pb2.Row(classification=row_pb2.ClassificationInput(text="a"))
    assert encode_request(label) == b'{"task":"classification","text":"a","v":1}'
    pair = row_pb2.Row(score=row_pb2.ScoreInput(query="a", document="b"))
    assert encode_request(pair) == b'{"document":"b","query":"a","task":"score","v":1}'


def test_a_row_without_input_has_no_encoding() -> None:
    with pytest.raises(ValueError, match="without input"):
        encode_request(row_pb2.Row(custom_id="a"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"v": 2}, "version 1"),
        ({"v": 1, "task": "paint"}, "unknown"),
        ({"v": 1, "task": "prompt", "sampling": {"seed": 1.5}}, "whole number"),
        ({"v": 1, "task": "prompt", "sampling": {"best_of": 2}}, "unknown"),
    ],
)
def test_foreign_bytes_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_request(json.dumps(fields).encode())


def test_whole_numbers_written_as_fractions_become_integers() -> None:
    data = b'{"v":1,"task":"prompt","prompt":"a","sampling":{"seed":7.0}}'
    assert repr(decode_request(data).sampling["seed"]) == "7"


def test_row_values_win_over_the_job_s() -> None:
    defaults = row_pb2.SamplingParams(temperature=0.5, max_tokens=10)
    assert merge_sampling(defaults, {"max_tokens": 3}) == {"temperature": 0.5, "max_tokens": 3}


def test_spec_names_model_template_and_sampling() -> None:
    spec = json.loads(encode_spec("m", "t", row_pb2.SamplingParams(seed=1)))
    assert spec == {"v": 1, "model": "m", "template": "t", "sampling": {"seed": 1}}

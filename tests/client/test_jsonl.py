"""Input files: what is accepted, and every way in which a file can be wrong, with the words that name the place."""

import codecs
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.client.jsonl import MAX_LINE_BYTES, InputLine, check_file, line_of_row, read_lines
from tidemill.client.requests import Endpoint
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import row_pb2


def read(data: bytes, model: str | None = None) -> list[InputLine]:
    return list(read_lines(io.BytesIO(data), "in.jsonl", model))


def refused(data: bytes, model: str | None = None) -> TidemillError:
    with pytest.raises(TidemillError) as caught:
        read(data, model)
    return caught.value


def read_or_refuse(data: bytes) -> tuple[list[InputLine], TidemillError | None]:
    try:
        return read(data), None
    except TidemillError as exc:
        return [], exc


def batch(request: dict[str, Any], endpoint: str = "/v1/chat/completions", **fields: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": endpoint, "body": request, **fields}


CHAT = {"messages": [{"role": "user", "content": "hi"}]}
EMBEDDINGS = "/v1/embeddings"
SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}}


def test_plain_lines_and_their_parameters() -> None:
    line: dict[str, Any] = {
        "custom_id": "a",
        "prompt": "p",
        "temperature": 0,
        "top_p": 0.5,
        "top_k": -1,
        "min_p": 0.1,
        "max_tokens": 5,
        "stop": ["x", "y"],
        "seed": 2**63 - 1,
        "frequency_penalty": -2,
        "presence_penalty": 2.0,
        "repetition_penalty": 1.5,
    }
    [item] = read(json.dumps(line).encode())
    expected = row_pb2.Row(custom_id="a", prompt="p")
    sampling = {key: value for key, value in line.items() if key not in ("custom_id", "prompt")}
    expected.sampling.CopyFrom(row_pb2.SamplingParams(**sampling))
    assert item.request.row == expected
    assert item.request.endpoint is Endpoint.COMPLETION


def test_batch_lines() -> None:
    chat = batch(
        {"model": "m", **CHAT, "max_completion_tokens": 7, "n": 1, "stream": False, "stop": "END", "seed": None}
    )
    text = batch({"prompt": "p"}, "/v1/completions", custom_id="b")
    first, second = read((json.dumps(chat) + "\n" + json.dumps(text)).encode())
    assert first.request.model == "m"
    assert first.request.endpoint is Endpoint.CHAT
    assert first.request.row.sampling == row_pb2.SamplingParams(max_tokens=7, stop=["END"])
    assert first.request.row.chat.messages[0].content == "hi"
    assert second.request.row == row_pb2.Row(custom_id="b", prompt="p")
    assert second.request.endpoint is Endpoint.COMPLETION


def rows_of(*lines: Any) -> list[row_pb2.Row]:
    return [item.request.row for item in read("\n".join(json.dumps(line) for line in lines).encode())]


def test_the_other_kinds_in_both_forms() -> None:
    cut = row_pb2.EmbeddingInput(text="x", dimensions=8)
    pair = row_pb2.ScoreInput(query="q", document="d")
    label = row_pb2.ClassificationInput(text="x")
    plain = rows_of({"embed": "x", "dimensions": 8}, {"classify": "x"}, {"query": "q", "document": "d"})
    body = rows_of(
        batch({"model": "m", "input": "x", "dimensions": 8, "encoding_format": "float"}, EMBEDDINGS),
        batch({"input": "x"}, "/classify"),
        batch({"queries": "q", "documents": "d"}, "/v1/score"),
    )
    for row, other in zip(plain, body, strict=True):
        row.custom_id = other.custom_id = "a"
        assert row == other
    assert plain == [
        row_pb2.Row(custom_id="a", embedding=cut),
        row_pb2.Row(custom_id="a", classification=label),
        row_pb2.Row(custom_id="a", score=pair),
    ]


def test_several_answers_and_log_probabilities() -> None:
    chat, bare, text, plain = rows_of(
        batch({**CHAT, "n": 3, "logprobs": True, "top_logprobs": 5, "min_tokens": 1, "ignore_eos": True}),
        batch({**CHAT, "logprobs": True}),
        batch({"prompt": "p", "logprobs": 2}, "/v1/completions"),
        {"prompt": "p", "logprobs": 2, "n": 4},
    )
    assert chat.sampling == row_pb2.SamplingParams(n=3, logprobs=5, min_tokens=1, ignore_eos=True)
    assert bare.sampling == row_pb2.SamplingParams(logprobs=0)
    assert text.sampling == row_pb2.SamplingParams(logprobs=2)
    assert plain.sampling == row_pb2.SamplingParams(logprobs=2, n=4)


def test_schemas_keep_the_order_of_their_properties() -> None:
    named = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    rows = rows_of(
        batch({**CHAT, "response_format": named}),
        {"prompt": "p", "json_schema": SCHEMA},
        {"prompt": "p", "json_schema": json.dumps(SCHEMA, separators=(",", ":"))},
        batch({**CHAT, "response_format": {"type": "json_object"}}),
        batch({**CHAT, "response_format": {"type": "text"}}),
    )
    text = '{"type":"object","properties":{"b":{},"a":{}}}'
    assert [row.sampling.json_schema for row in rows] == [text, text, text, '{"type":"object"}', ""]
    assert not rows[-1].HasField("sampling")


def test_line_ends_marks_and_blank_lines_are_tolerated() -> None:
    data = codecs.BOM_UTF8 + b'{"prompt": "a"}\r\n\r\n   \n{"prompt": "b\xc3\xa9"}'
    items = read(data)
    assert [(item.line, item.request.row.custom_id, item.request.row.prompt) for item in items] == [
        (1, "row-1", "a"),
        (4, "row-4", "b\u00e9"),
    ]


NOT_A_LINE: list[tuple[bytes, str]] = [
    (b"", "has no rows"),
    (b"\n \n", "has no rows"),
    (b"id,prompt\n1,hello\n", "line 1: is not JSON"),
    (b'[{"prompt": "a"}]', "is a JSON array"),
    (b'{\n "prompt": "a"\n}', "line 1: is not JSON"),
    (b"\x1f\x8b\x08\x00", "is gzip"),
    (b"PAR1....", "is Parquet"),
    (b"PK\x03\x04", "is a zip archive"),
    (b"\x28\xb5\x2f\xfd", "is zstd"),
    (codecs.BOM_UTF16_LE + '{"prompt": "a"}'.encode("utf-16-le"), "is UTF-16"),
    (b'{"prompt": "\xff"}', "line 1: is not UTF-8 (byte 12 is 0xff)"),
    (b'{"prompt": "a"}\n"text"', 'line 2: must be a JSON object such as {"prompt": "..."}, not the string "text"'),
    (b'{"prompt": "a"}\nnull', "line 2: must be a JSON object"),
    (b'{"prompt": "a"} {"prompt": "b"}', "line 1: is not JSON (Extra data"),
    (b'{"prompt": "a", "seed": ' + b"1" * 5000 + b"}", "line 1: is not JSON"),
    (b'{"prompt": ' + b"[" * 100_000, "line 1: is nested too deeply"),
    (b'{"prompt": "' + b"x" * MAX_LINE_BYTES + b'"}', "line 1: the line is longer than 4 MiB"),
    (b'{"prompt": "a", "prompt": "b"}', 'line 1, "prompt": stands twice'),
    (b'{"prompt": "\\ud800"}', 'line 1, "prompt": holds half of a surrogate pair'),
    (b'{"prompt": "a", "temperature": NaN}', "NaN is not a JSON number"),
    (b'{"prompt": "a", "temperature": Infinity}', "Infinity is not a JSON number"),
    (b'{"prompt": "a", "temperature": 1e999}', "1e999 is too large a number"),
]


@pytest.mark.parametrize(("data", "words"), NOT_A_LINE, ids=[words for _, words in NOT_A_LINE])
def test_what_is_not_jsonl(data: bytes, words: str) -> None:
    error = refused(data)
    assert error.reason is Reason.INVALID_FILE
    assert words in error.message
    assert error.message.startswith("in.jsonl")
    assert error.metadata["file"] == "in.jsonl"


BAD_FIELDS: list[tuple[Any, str, str]] = [
    ({}, "prompt", "is missing"),
    ({"prompt": "a", **CHAT}, "messages", 'is given together with "prompt"'),
    ({"prompt": ""}, "prompt", "is empty"),
    ({"prompt": ["a"]}, "prompt", "must be a string"),
    ({"prompt": 1}, "prompt", "must be a string"),
    ({"messages": []}, "messages", "is empty"),
    ({"messages": "hi"}, "messages", "must be a list"),
    ({"messages": ["hi"]}, "messages[0]", "must be an object"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "must be a string"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content", "must be a string"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role", "must be one of"),
    ({"messages": [{"role": ["user"], "content": "a"}]}, "messages[0].role", "must be one of"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "messages[0].role", 'must be "user"'),
    ({"prompt": "a", "custom_id": 7}, "custom_id", "must be a string"),
    ({"prompt": "a", "custom_id": ""}, "custom_id", "1 to 256 bytes"),
    ({"prompt": "a", "custom_id": "\u00e9" * 129}, "custom_id", "1 to 256 bytes"),
    ({"prompt": "a", "temperature": "1"}, "temperature", 'not the string "1"'),
    ({"prompt": "a", "temperature": True}, "temperature", "not the boolean true"),
    ({"prompt": "a", "temperature": 2.1}, "temperature", "is 2.1; it must be at least 0 and at most 2"),
    ({"prompt": "a", "temperature": -0.1}, "temperature", "at least 0"),
    ({"prompt": "a", "temperature": [1]}, "temperature", "not a list"),
    ({"prompt": "a", "top_p": 0}, "top_p", "above 0"),
    ({"prompt": "a", "top_k": 0}, "top_k", "or -1"),
    ({"prompt": "a", "top_k": -2}, "top_k", "or -1"),
    ({"prompt": "a", "max_tokens": 1.0}, "max_tokens", "must be a whole number"),
    ({"prompt": "a", "max_tokens": 0}, "max_tokens", "at least 1"),
    ({"prompt": "a", "max_tokens": 2**31}, "max_tokens", "at most 2147483647"),
    ({"prompt": "a", "seed": -1}, "seed", "at least 0"),
    ({"prompt": "a", "seed": 2**63}, "seed", "at most 9223372036854775807"),
    ({"prompt": "a", "seed": False}, "seed", "not the boolean false"),
    ({"prompt": "a", "repetition_penalty": 0}, "repetition_penalty", "above 0"),
    ({"prompt": "a", "stop": 1}, "stop", "must be a string or a list"),
    ({"prompt": "a", "stop": [1]}, "stop", "must hold strings only"),
    ({"prompt": "a", "stop": [""]}, "stop", "1 to 256 bytes"),
    ({"prompt": "a", "stop": ["x"] * 17}, "stop", "at most 16"),
    (batch(CHAT, method="GET"), "method", 'must be "POST"'),
    (batch(CHAT, url="/v1/audio"), "url", "must be one of"),
    (batch(CHAT, url=["x"]), "url", "must be"),
    (batch(CHAT, extra=1), "extra", "is not part of a batch request"),
    (batch(CHAT, body="x"), "body", "must be an object"),
    (batch(CHAT, custom_id=None), "custom_id", "must be a string"),
    ({"method": "POST", "url": "/v1/completions", "body": {"prompt": "a"}}, "custom_id", "is missing"),
    (batch({"prompt": "a"}), "body.prompt", "is not allowed"),
    (batch({"prompt": "a", **CHAT}), "body.prompt", "is given together"),
    (batch({}), "body.messages", "is missing"),
    (batch({**CHAT, "model": 1}), "body.model", "must be a model's id"),
    (batch({**CHAT, "max_tokens": 1, "max_completion_tokens": 2}), "body.max_completion_tokens", "contradicts"),
    (batch({**CHAT, "max_completion_tokens": "9"}), "body.max_tokens", "must be a whole number"),
    (batch({**CHAT, "n": True}), "body.n", "must be a whole number"),
    (batch({**CHAT, "n": 17}), "body.n", "at most 16"),
    (batch({**CHAT, "logprobs": 5}), "body.logprobs", "must be true or false"),
    (batch({**CHAT, "top_logprobs": 5}), "body.top_logprobs", 'needs "logprobs": true'),
    (batch({**CHAT, "logprobs": True, "top_logprobs": 21}), "body.logprobs", "at most 20"),
    (batch({"prompt": "a", "logprobs": True}, "/v1/completions"), "body.logprobs", "must be a whole number"),
    (batch({**CHAT, "response_format": "json"}), "body.response_format", "must be an object"),
    (batch({**CHAT, "response_format": {"type": "json_schema"}}), "body.response_format.json_schema", "must be an"),
    (
        batch({**CHAT, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}),
        "body.json_schema",
        "at /type",
    ),
    (
        batch({**CHAT, "response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}),
        "body.response_format.json_schema.schema",
        "must be a JSON Schema",
    ),
    (
        batch({**CHAT, "json_schema": "{}", "response_format": {"type": "json_object"}}),
        "body.json_schema",
        "is given together",
    ),
    ({"prompt": "a", "json_schema": 1}, "json_schema", "must be a JSON Schema"),
    ({"prompt": "a", "ignore_eos": 1}, "ignore_eos", "must be true or false"),
    ({"embed": ["a"]}, "embed", "a row embeds one text"),
    ({"embed": ""}, "embed", "is empty"),
    ({"embed": "a", "dimensions": 0}, "dimensions", "at least 1"),
    ({"embed": "a", "dimensions": 1.0}, "dimensions", "must be a whole number"),
    ({"embed": "a", "prompt": "b"}, "embed", 'is given together with "prompt"'),
    ({"query": "a"}, "document", 'it goes with "query"'),
    ({"document": "a"}, "query", 'it goes with "document"'),
    (batch({"queries": ["a"], "documents": "b"}, "/v1/score"), "body.queries", "a row scores one pair"),
    (batch({"queries": "a"}, "/v1/score"), "body.documents", "is missing"),
    (batch({"messages": [], "input": "a"}, EMBEDDINGS), "body.messages", "is given together"),
]


@pytest.mark.parametrize(("value", "key", "words"), BAD_FIELDS, ids=[f"{key}: {words}" for _, key, words in BAD_FIELDS])
def test_a_bad_line_7_is_named_with_its_key(value: Any, key: str, words: str) -> None:
    good = b"".join(b'{"prompt": "p%d"}\n' % number for number in range(6))
    error = refused(good + json.dumps(value).encode())
    assert error.reason is Reason.INVALID_FILE
    assert error.message.startswith(f'in.jsonl line 7, "{key}": ')
    assert words in error.message
    assert (error.metadata["line"], error.metadata["key"]) == ("7", key)


UNSUPPORTED: list[tuple[Any, str]] = [
    ({"prompt": "a", "logit_bias": {}}, "logit_bias"),
    ({"prompt": "a", "best_of": 1}, "best_of"),
    ({"prompt": "a", "\ud800": 1}, "\\ud800"),
    ({"messages": [{"role": "user", "content": "a", "name": "x"}]}, "messages[0].name"),
    (batch({**CHAT, "tools": []}), "body.tools"),
    (batch({**CHAT, "response_format": {"type": "grammar"}}), "body.response_format.type"),
    (batch({**CHAT, "response_format": {"type": "text", "x": 1}}), "body.response_format.x"),
    (batch({"input": "a", "temperature": 1}, EMBEDDINGS), "body.temperature"),
    (batch({"input": "a", "encoding_format": "base64"}, EMBEDDINGS), "body.encoding_format"),
    (batch({"input": "a", "dimensions": 1}, "/classify"), "body.dimensions"),
    ({"embed": "a", "max_tokens": 1}, "max_tokens"),
    ({"prompt": "a", "dimensions": 1}, "dimensions"),
    ({"query": "a", "document": "b", "x": 1}, "x"),
    (batch({**CHAT, "stream": True}), "body.stream"),
    (batch({"prompt": "a", "max_completion_tokens": 1}, "/v1/completions"), "body.max_completion_tokens"),
]


@pytest.mark.parametrize(("value", "key"), UNSUPPORTED, ids=[key for _, key in UNSUPPORTED])
def test_an_unsupported_parameter_is_refused_by_name(value: Any, key: str) -> None:
    error = refused(json.dumps(value).encode())
    assert error.reason is Reason.UNSUPPORTED_PARAMETER
    assert error.message.startswith(f'in.jsonl line 1, "{key}": ')


def test_another_model_than_the_job_s_is_refused() -> None:
    data = json.dumps(batch({**CHAT, "model": "a"})).encode()
    assert read(data, "a")[0].request.model == "a"
    assert 'line 1, "body.model": is "a" while the job is for "b"' in refused(data, "b").message


def test_a_file_is_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(batch({**CHAT, "model": "m"})) + '\n\n{"prompt": "x"}\n')
    summary = check_file(path)
    assert (summary.rows, summary.models) == (2, {"m"})
    assert summary.endpoints == {Endpoint.CHAT, Endpoint.COMPLETION}
    assert [line_of_row(path, index) for index in range(3)] == [1, 3, None]


def test_a_duplicate_is_named_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b", "custom_id": "row-1"}\n')
    with pytest.raises(TidemillError, match='line 3, "custom_id": is the same as on line 1'):
        check_file(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match="no such file") as caught:
        check_file(tmp_path / "none.jsonl")
    assert caught.value.reason is Reason.INVALID_FILE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["prompt", "messages", "custom_id", "method", "url", "body", "temperature", "stop", "seed", "n", "model", "x"]
)
LIKELY = JSON | st.sampled_from(["POST", "/v1/completions", "/v1/chat/completions", [{"role": "user", "content": "a"}]])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(KEYS, LIKELY | st.dictionaries(KEYS, LIKELY), max_size=6), min_size=1, max_size=4))
def test_any_json_is_read_or_refused_in_words(lines: list[Any]) -> None:
    data = "\n".join(json.dumps(line) for line in lines).encode()
    items, error = read_or_refuse(data)
    if error:
        assert error.message.startswith("in.jsonl line ")
    else:
        assert all(item.request.row.WhichOneof("input") for item in items)
        assert all(item.request.row.SerializeToString() for item in items)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_words(data: bytes) -> None:
    _, error = read_or_refuse(data)
    assert error is None or error.message.startswith("in.jsonl ")

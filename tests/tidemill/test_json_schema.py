"""What schemas are refused, and that refusing them takes no time."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.json_schema import MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, schema_problem
from tidemill.pattern_cost import pattern_cost

GOOD: list[dict[str, Any]] = [
    {},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": ["string", "null"], "minLength": 1, "maxLength": 5, "pattern": "^[a-z]{1,9}$"},
    {"enum": [1, "x", None]},
    {"anyOf": [{"const": 1}, True], "description": "x", "examples": [{"type": "objekt"}]},
    {"$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "$ref": "#/$defs/node"},
    {"properties": {"a/b~c": {"$ref": "#/properties/d"}, "d": {"type": "number", "minimum": -1.5}}},
    {"properties": {"type": {"type": "string"}, "$ref": {"type": "string"}}},
    {"properties": {"a": {"$ref": "#"}}},
]
BAD: list[tuple[str, str]] = [
    ("", "has 0 bytes"),
    ("nonsense", "not JSON"),
    ("[]", "JSON object"),
    ("true", "JSON object"),
    ('{"type":"objekt"}', "at /type"),
    ('{"type":[]}', "at /type"),
    ('{"properties":[]}', "at /properties"),
    ('{"properties":{"a":1}}', "at /properties/a"),
    ('{"items":[{}]}', "at /items"),
    ('{"anyOf":[]}', "at /anyOf"),
    ('{"enum":[]}', "at /enum"),
    ('{"enum":5}', "at /enum"),
    ('{"required":"a"}', "at /required"),
    ('{"minLength":-1}', "at /minLength"),
    ('{"maxItems":1.5}', "at /maxItems"),
    ('{"maxItems":true}', "at /maxItems"),
    ('{"maxItems":1000000}', "100000"),
    ('{"minItems":3,"maxItems":2}', "nothing can match"),
    ('{"minimum":"0"}', "at /minimum"),
    ('{"minimum":NaN}', "NaN"),
    ('{"multipleOf":0}', "at /multipleOf"),
    ('{"pattern":"((a{100}){100}){100}"}', "at /pattern"),
    ('{"patternProperties":{"(a{99}){99}":{}}}', "pattern"),
    ('{"$ref":"#/$defs/none"}', "at /$ref"),
    ('{"$ref":"http://example.com/a"}', "nothing is fetched"),
    ('{"$ref":"#"}', "back to itself"),
    ('{"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"}]}}}', "back to itself"),
    ('{"$dynamicRef":"#a"}', "$dynamicRef"),
    ('{"type":"string","type":"null"}', "stands twice"),
    ('{"const":"\\ud800"}', "surrogate"),
    ('{"a":' * 40 + "1" + "}" * 40, str(MAX_SCHEMA_DEPTH)),
    ("[" * 60_000, str(MAX_SCHEMA_DEPTH)),
    ('{"const":"' + "x" * MAX_SCHEMA_BYTES + '"}', str(MAX_SCHEMA_BYTES)),
    ('{"anyOf":[' + ",".join(["{}"] * 20_000) + "]}", "2000 schemas"),
    ('{"enum":[' + ",".join(["1"] * 20_000) + "]}", "5000 enum"),
    ('{"const":' + "1" * 5000 + "}", "not JSON"),
    ("{" + ",".join(f'"{n:x}":1' for n in range(7000)) + ',"1b57":1}', "'1b57' stands twice"),
    ('{"$defs":{"' + "x" * 30_000 + '":{"anyOf":[' + ",".join(["{}"] * 1500) + "]}}}", "1024 characters"),
]


@pytest.mark.parametrize("schema", GOOD, ids=json.dumps)
def test_good_schemas(schema: dict[str, Any]) -> None:
    assert schema_problem(json.dumps(schema)) is None


@pytest.mark.parametrize(("text", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_schemas_are_named(text: str, words: str) -> None:
    started = time.process_time()
    problem = schema_problem(text)
    assert problem is not None
    assert words in problem
    assert len(problem) < 400
    assert time.process_time() - started < 2


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "items", "anyOf", "$ref", "enum", "maxItems", "properties"]), inner)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["type", "items", "anyOf", "not", "$ref", "$defs", "required", "minItems"]), values)
)
def test_anything_is_judged(schema: dict[str, Any]) -> None:
    problem = schema_problem(json.dumps(schema))
    assert problem is None or problem


@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    assert schema_problem(text) != ""


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_counted_repetitions_multiply_when_nested_and_add_when_not(first: int, second: int, third: int) -> None:
    assert pattern_cost(f"(a{{{first}}}){{{second}}}") == first * second
    assert pattern_cost(f"a{{{first}}}[b-z]{{0,{second}}}\\d{{{third},}}") == first + second + third


@given(st.text("ab(){}[]\\,0123456789*+?|", max_size=30))
def test_any_pattern_has_a_cost(pattern: str) -> None:
    plain = re.sub(r"\{.*", "", pattern)
    assert 0 <= pattern_cost(plain) <= len(plain)
    assert pattern_cost(pattern) >= 0

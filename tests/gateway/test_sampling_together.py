"""Sampling values that must fit each other, without processes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.row_fields import RowRules, check_row
from services.gateway.sampling_together import Effective, check_together
from tidemill.encoding import encode_request
from tidemill.v1 import row_pb2

Sampling = row_pb2.SamplingParams

CASES: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({}, {}, []),
    ({"n": 2}, {}, []),
    ({"n": 2, "temperature": 0}, {}, ["n"]),
    ({"n": 2}, {"temperature": 1e-6}, ["n"]),
    ({"n": 2, "temperature": 0.5}, {"temperature": 0}, []),
    ({"n": 1, "temperature": 0}, {"n": 2}, []),
    ({"min_tokens": 5, "max_tokens": 5}, {}, []),
    ({"min_tokens": 6}, {"max_tokens": 5}, ["min_tokens"]),
    ({"min_tokens": 100}, {}, ["min_tokens"]),
    ({"min_tokens": 99}, {}, []),
    ({"logprobs": 20}, {"max_tokens": 90}, []),
    ({"logprobs": 20, "n": 16, "max_tokens": 196}, {}, ["logprobs"]),
    ({"logprobs": 20, "n": 16, "max_tokens": 195}, {}, []),
    ({"json_schema": "{}", "ignore_eos": True}, {}, ["ignore_eos"]),
    ({"json_schema": "{}"}, {"min_tokens": 1}, ["min_tokens"]),
    ({"json_schema": "{}", "min_tokens": 0, "ignore_eos": False}, {}, []),
]


@pytest.mark.parametrize(("own", "defaults", "fields"), CASES)
def test_cases(own: dict[str, Any], defaults: dict[str, Any], fields: list[str]) -> None:
    found = list(check_together(Effective(Sampling(**own), Sampling(**defaults)), 100))
    assert [item.field for item in found] == [f"sampling.{name}" for name in fields]


def test_answers_in_all_are_bounded() -> None:
    values = Effective(Sampling(n=16, max_tokens=65_537), Sampling())
    assert [item.field for item in check_together(values, 0)] == ["sampling.n"]


def test_without_a_window_only_what_is_set_is_compared() -> None:
    values = Effective(None, Sampling(n=16, logprobs=20, min_tokens=1 << 30))
    assert not list(check_together(values, 0))


defaults = st.builds(
    Sampling,
    n=st.none() | st.integers(1, 16),
    logprobs=st.none() | st.integers(0, 20),
    max_tokens=st.none() | st.integers(1, 5000),
    min_tokens=st.none() | st.integers(0, 5000),
    temperature=st.none() | st.sampled_from([0.0, 1e-6, 0.5]),
)


@given(own=defaults, job=defaults)
def test_what_passes_is_bounded_whoever_set_it(own: row_pb2.SamplingParams, job: row_pb2.SamplingParams) -> None:
    row = row_pb2.Row(custom_id="a", prompt="x", sampling=own)
    error = check_row(row, 0, RowRules("m", 5001, sampling=job))
    merged = Sampling()
    merged.CopyFrom(job)
    merged.MergeFrom(own)
    n, most = merged.n or 1, merged.max_tokens or 5000
    good = (
        merged.min_tokens <= most
        and (n == 1 or not merged.HasField("temperature") or merged.temperature >= 1e-5)
        and (not merged.HasField("logprobs") or n * most * (1 + merged.logprobs) <= 65_536)
    )
    assert (error is None) == good
    assert encode_request(row) == encode_request(row_pb2.Row(custom_id="b", prompt="x", sampling=own))

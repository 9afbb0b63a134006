"""Nothing wrongly typed reaches an engine."""

import math
from typing import Any

import pytest

from services.inference.sampling import (
    RowRefusedError,
    engine_sampling,
    refuse_shared_only,
    uniform_sampling,
)
from tidemill.errors import RowCode
from tidemill.sampling_limits import shared_only


def test_absent_values_take_the_public_defaults() -> None:
    assert engine_sampling({}, 10, 100) == {
        "temperature": 1.0,
        "top_p": 1.0,
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "top_k": -1,
        "max_tokens": 90,
    }


def test_types_are_exact() -> None:
    arguments = engine_sampling({"temperature": 0, "top_k": 5, "seed": 7, "max_tokens": 3, "stop": ["x"]}, 1, 100)
    assert {name: type(arguments[name]) for name in ("temperature", "top_k", "seed", "max_tokens", "stop")} == {
        "temperature": float,
        "top_k": int,
        "seed": int,
        "max_tokens": int,
        "stop": list,
    }


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"seed": 1.0}, "seed"),
        ({"max_tokens": 2.0}, "max_tokens"),
        ({"top_k": True}, "top_k"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": "x"}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"n": 2.0}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"min_tokens": "3"}, "min_tokens"),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"json_schema": {"type": "object"}}, "json_schema"),
    ],
)
def test_a_wrong_type_is_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(RowRefusedError, match=field) as refused:
        engine_sampling(values, 1, 100)
    assert refused.value.code is RowCode.PARAMETER_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": -1e-9}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"top_k": 0}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"n": 2, "seed": 2**63 - 1}, "seed"),
    ],
)
def test_a_value_out_of_range_is_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(RowRefusedError, match=f"sampling.{field} must be") as refused:
        engine_sampling(values, 1, 100)
    assert refused.value.code is RowCode.PARAMETER_OUT_OF_RANGE


def test_what_one_row_may_return_is_bounded() -> None:
    allowed = {"n": 4, "logprobs": 15, "max_tokens": 1024}
    assert engine_sampling(allowed, 1, 1 << 20)["max_tokens"] == 1024
    with pytest.raises(RowRefusedError, match="max_tokens must be 1024 or less with n of 4 and logprobs of 15"):
        engine_sampling({**allowed, "max_tokens": 1025}, 1, 1 << 20)
    with pytest.raises(RowRefusedError, match="max_tokens must be 65536 or less with n of 16"):
        engine_sampling({"n": 16, "max_tokens": 65537}, 1, 1 << 20)


@pytest.mark.parametrize("values", [{"n": 2}, {"logprobs": 0}, {"json_schema": "{}"}])
def test_dedicated_mode_refuses_by_name_what_it_cannot_give(values: dict[str, Any]) -> None:
    assert shared_only(values)
    with pytest.raises(RowRefusedError, match=f"sampling.{next(iter(values))} .*shared mode") as refused:
        refuse_shared_only(engine_sampling(values, 1, 100))
    assert refused.value.code is RowCode.UNSUPPORTED_PARAMETER


def test_dedicated_mode_takes_the_rest() -> None:
    values: dict[str, Any] = {"n": 1, "min_tokens": 2, "ignore_eos": True, "max_tokens": 3}
    assert not shared_only(values)
    arguments = engine_sampling(values, 1, 100)
    refuse_shared_only(arguments)
    uniform = uniform_sampling(arguments)
    assert uniform.keys() == uniform_sampling(engine_sampling({}, 1, 100)).keys()
    assert (uniform["min_tokens"], uniform["ignore_eos"]) == (2, True)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(RowRefusedError) as refused:
        engine_sampling({"logit_bias": 1}, 1, 100)
    assert refused.value.code is RowCode.UNSUPPORTED_PARAMETER


@pytest.mark.parametrize(("values", "tokens"), [({}, 100), ({}, 4000), ({"max_tokens": 51}, 50)])
def test_prompt_and_answer_must_fit_the_window(values: dict[str, Any], tokens: int) -> None:
    with pytest.raises(RowRefusedError, match=f"{tokens} tokens.*100") as refused:
        engine_sampling(values, tokens, 100)
    assert refused.value.code is RowCode.PROMPT_TOO_LONG


def test_the_window_may_be_filled_exactly() -> None:
    assert engine_sampling({"max_tokens": 50}, 50, 100)["max_tokens"] == 50
    assert engine_sampling({}, 99, 100)["max_tokens"] == 1


def test_uniform_rows_have_equal_keys_and_no_none() -> None:
    plain = uniform_sampling(engine_sampling({}, 1, 100))
    full = uniform_sampling(engine_sampling({"seed": 3, "stop": ["a"], "temperature": 0.5}, 1, 100))
    assert plain.keys() == full.keys()
    assert None not in plain.values()
    assert plain["seed"] == -1
    assert full["seed"] == 3

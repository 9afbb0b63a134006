"""Nothing wrongly typed reaches an engine."""

from typing import Any

import pytest

from services.inference.sampling import RowRefusedError, engine_sampling, uniform_sampling
from tidemill.errors import RowCode


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
    ],
)
def test_a_wrong_type_is_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(RowRefusedError, match=field) as refused:
        engine_sampling(values, 1, 100)
    assert refused.value.code is RowCode.PARAMETER_OUT_OF_RANGE


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

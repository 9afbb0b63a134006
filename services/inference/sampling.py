"""From a row's sampling values to the engine's, strictly typed.

One wrongly typed value (`seed=1.0`) kills vLLM's input thread and hangs every later request, so nothing reaches the
engine but what this module built.
"""

from collections.abc import Mapping
from typing import Any

from tidemill.encoding import SamplingValue
from tidemill.errors import RowCode

__all__ = ["RowRefusedError", "engine_sampling", "uniform_sampling"]

_FLOAT_DEFAULTS = {
    "temperature": 1.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
}
_APPLIED = frozenset({*_FLOAT_DEFAULTS, "top_k", "max_tokens", "seed", "stop"})
_ALL_TOKENS = -1
_NO_SEED = -1


class RowRefusedError(Exception):
    """A row that no engine will answer: it ends as an error row with this code."""

    def __init__(self, code: RowCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def engine_sampling(values: Mapping[str, SamplingValue], prompt_tokens: int, window: int) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams`, each with its exact type; no entry is None.

    Args:
        values: the row's values merged with the job's; absent ones take the public defaults.
        prompt_tokens: length of the rendered prompt.
        window: most tokens of prompt and answer together.

    Raises:
        RowRefusedError: a value has the wrong type, or prompt and answer do not fit the window.
    """
    if unknown := sorted(set(values) - _APPLIED):
        raise RowRefusedError(RowCode.UNSUPPORTED_PARAMETER, f"sampling field {unknown[0]!r} is not supported")
    arguments: dict[str, Any] = {
        name: _fraction(name, values.get(name, default)) for name, default in _FLOAT_DEFAULTS.items()
    }
    arguments["top_k"] = _whole("top_k", values.get("top_k", _ALL_TOKENS))
    arguments["max_tokens"] = _answer_tokens(values, prompt_tokens, window)
    if "seed" in values:
        arguments["seed"] = _whole("seed", values["seed"])
    if "stop" in values:
        arguments["stop"] = _texts("stop", values["stop"])
    return arguments


def uniform_sampling(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same with identical keys in every row: Ray Data merges rows by Arrow, which fills gaps with None and turns
    integers with gaps into floats. A seed of -1 stands for none."""
    return {"seed": _NO_SEED, "stop": [], **arguments}


def _answer_tokens(values: Mapping[str, SamplingValue], prompt_tokens: int, window: int) -> int:
    room = window - prompt_tokens
    if room < 1:
        raise RowRefusedError(
            RowCode.PROMPT_TOO_LONG,
            f"the prompt has {prompt_tokens} tokens, the model's window holds {window} with the answer: shorten the "
            f"prompt to {window - 1} tokens or less",
        )
    if "max_tokens" not in values:
        return room
    wanted = _whole("max_tokens", values["max_tokens"])
    if wanted > room:
        raise RowRefusedError(
            RowCode.PROMPT_TOO_LONG,
            f"the prompt has {prompt_tokens} tokens and max_tokens is {wanted}, together {prompt_tokens + wanted}; the "
            f"model's window holds {window}: lower max_tokens to {room} or less, or shorten the prompt",
        )
    return wanted


def _fraction(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mistyped(name, "a number", value)
    return float(value)


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _mistyped(name, "a whole number", value)
    return value


def _texts(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _mistyped(name, "a list of strings", value)
    return [str(item) for item in value]


def _mistyped(name: str, wanted: str, value: object) -> RowRefusedError:
    return RowRefusedError(RowCode.PARAMETER_OUT_OF_RANGE, f"sampling.{name} must be {wanted}, not {value!r}")

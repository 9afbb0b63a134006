"""From a row's sampling values to the engine's, strictly typed.

One wrongly typed value (`seed=1.0`) kills vLLM's input thread and hangs every later request, so nothing reaches the
engine but what this module built.
"""

from collections.abc import Mapping
from typing import Any

from tidemill.encoding import SamplingValue
from tidemill.errors import RowCode
from tidemill.sampling_limits import GREEDY_BELOW, MAX_ROW_LOGPROBS, MAX_ROW_TOKENS, RANGES, shared_only

__all__ = ["RowRefusedError", "engine_sampling", "refuse_shared_only", "uniform_sampling"]

_NO_SEED = -1

_DEFAULTS: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
    "top_k": -1,
}


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
    arguments = dict(_DEFAULTS)
    for name, value in values.items():
        arguments[name] = _checked(name, value)
    arguments["max_tokens"] = _answer_tokens(arguments.get("max_tokens"), prompt_tokens, window)
    if "min_tokens" in values and arguments["min_tokens"] > arguments["max_tokens"]:
        raise _outside("min_tokens", f"at most max_tokens, here {arguments['max_tokens']}", values["min_tokens"])
    if "n" in values or "logprobs" in values:
        _check_amount(arguments)
    return arguments


def refuse_shared_only(arguments: Mapping[str, Any]) -> None:
    """UNSUPPORTED_PARAMETER for what dedicated mode cannot give; RowRefusedError."""
    if names := shared_only(arguments):
        raise RowRefusedError(
            RowCode.UNSUPPORTED_PARAMETER,
            f"sampling.{names[0]} of a row is not supported in dedicated mode: set it for the whole job, or submit the "
            "job in shared mode",
        )


def uniform_sampling(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same with identical keys in every row: Ray Data merges rows by Arrow, which fills gaps with None and turns
    integers with gaps into floats. A seed of -1 stands for none."""
    plain = {"seed": _NO_SEED, "stop": [], "min_tokens": 0, "ignore_eos": False, **arguments}
    plain.pop("n", None)  # 1, see `refuse_shared_only`
    return plain


def _answer_tokens(wanted: int | None, prompt_tokens: int, window: int) -> int:
    room = window - prompt_tokens
    if room < 1:
        raise RowRefusedError(
            RowCode.PROMPT_TOO_LONG,
            f"the prompt has {prompt_tokens} tokens, the model's window holds {window} with the answer: shorten the "
            f"prompt to {window - 1} tokens or less",
        )
    if wanted is None:
        return room
    if wanted > room:
        raise RowRefusedError(
            RowCode.PROMPT_TOO_LONG,
            f"the prompt has {prompt_tokens} tokens and max_tokens is {wanted}, together {prompt_tokens + wanted}; the "
            f"model's window holds {window}: lower max_tokens to {room} or less, or shorten the prompt",
        )
    return wanted


def _check_amount(arguments: Mapping[str, Any]) -> None:
    """Bounds that several values have together."""
    answers, tokens = arguments.get("n", 1), arguments["max_tokens"]
    if answers > 1 and arguments["temperature"] < GREEDY_BELOW:
        raise _outside("n", "1 where temperature is 0, since greedy answers are all equal", answers)
    if answers > 1 and arguments.get("seed", 0) > RANGES["seed"].high - answers:
        raise _outside("seed", "2^63-1-n or less, since each answer takes the next one", arguments["seed"])
    if answers > 1 and answers * tokens > MAX_ROW_TOKENS:
        raise _outside("max_tokens", f"{MAX_ROW_TOKENS // answers} or less with n of {answers}", tokens)
    if "logprobs" in arguments:
        each = answers * (1 + arguments["logprobs"])
        if each * tokens > MAX_ROW_LOGPROBS:
            limit = f"{MAX_ROW_LOGPROBS // each} or less with n of {answers} and logprobs of {arguments['logprobs']}"
            raise _outside("max_tokens", limit, tokens)


def _checked(name: str, value: object) -> Any:
    if name in RANGES:
        return _number(name, value)
    if name == "stop":
        return _texts(name, value)
    if name == "ignore_eos":
        if not isinstance(value, bool):
            raise _outside(name, "true or false", value)
        return value
    if name == "json_schema":
        if not isinstance(value, str):
            raise _outside(name, "the text of a JSON Schema", value)
        return value
    raise RowRefusedError(RowCode.UNSUPPORTED_PARAMETER, f"sampling field {name!r} is not supported")


def _number(name: str, value: object) -> int | float:
    allowed = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int if allowed.whole else int | float):
        raise _outside(name, "a whole number" if allowed.whole else "a number", value)
    if value not in allowed:
        raise _outside(name, str(allowed), value)
    return value if allowed.whole else float(value)


def _texts(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _outside(name, "a list of strings", value)
    return [str(item) for item in value]


def _outside(name: str, wanted: str, value: object) -> RowRefusedError:
    return RowRefusedError(RowCode.PARAMETER_OUT_OF_RANGE, f"sampling.{name} must be {wanted}, not {value!r}")

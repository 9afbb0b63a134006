"""Sampling parameters in a request: their names, types and ranges. Nothing unknown passes and nothing is converted."""

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from tidemill.errors import Reason
from tidemill.json_schema import schema_problem
from tidemill.sampling_limits import MAX_STOP_BYTES, MAX_STOP_STRINGS, RANGES, Range
from tidemill.v1 import row_pb2

PARAMETERS = frozenset({*RANGES, "ignore_eos", "json_schema", "stop"})


class FieldError(ValueError):
    """One field of one request is wrong; the caller adds where the request came from.

    Attributes:
        key: path of the field inside the request, such as `body.temperature`; empty for the request as a whole.
        problem: what is wrong, the limit and the remedy.
    """

    def __init__(self, key: str, problem: str, reason: Reason = Reason.INVALID_ARGUMENT) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem
        self.reason = reason


def build_sampling(values: Mapping[str, object], prefix: str = "") -> row_pb2.SamplingParams:
    """`values` as the wire carries them; None means not set. Raises FieldError with the key below `prefix`."""
    sampling = row_pb2.SamplingParams()
    for name, value in values.items():
        if name not in PARAMETERS:
            supported = ", ".join(sorted(PARAMETERS))
            problem = f"is not a supported parameter; remove it (supported: {supported})"
            raise FieldError(prefix + name, problem, Reason.UNSUPPORTED_PARAMETER)
        if value is None:
            continue
        match name:
            case "stop":
                sampling.stop.extend(_stops(value, prefix + name))
            case "ignore_eos":
                sampling.ignore_eos = _flag(value, prefix + name)
            case "json_schema":
                sampling.json_schema = _schema(value, prefix + name)
            case _:
                setattr(sampling, name, _number(value, RANGES[name], prefix + name))
    return sampling


def whole_number(value: object, allowed: Range, key: str) -> int:
    """`value`, or FieldError unless it is a whole number in the range."""
    return int(_number(value, allowed, key))


def _number(value: object, allowed: Range, key: str) -> int | float:
    kinds = (int,) if allowed.whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        noun = "a whole number" if allowed.whole else "a number"
        raise FieldError(key, f"must be {noun} {allowed}, not {show(value)}")
    if (isinstance(value, float) and not math.isfinite(value)) or value not in allowed:
        raise FieldError(key, f"is {show(value)}; it must be {allowed}")
    return value


def _flag(value: object, key: str) -> bool:
    if not isinstance(value, bool):
        raise FieldError(key, f"must be true or false, not {show(value)}")
    return value


def _schema(value: object, key: str) -> str:
    """A schema as text; the order of an object's properties is kept, since answers follow it."""
    if isinstance(value, Mapping):
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as exc:
            raise FieldError(key, f"is not JSON: {exc}") from None
    elif isinstance(value, str):
        text = value
    else:
        raise FieldError(key, f"must be a JSON Schema, as an object or as text, not {show(value)}")
    if problem := schema_problem(check_text(text, key)):
        raise FieldError(key, f"is refused: {problem}")
    return text


def _stops(value: object, key: str) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        raise FieldError(key, f"must be a string or a list of strings, not {show(value)}")
    items = cast("list[Any]", stops)
    if len(items) > MAX_STOP_STRINGS:
        raise FieldError(key, f"has {len(items)} strings; at most {MAX_STOP_STRINGS} are allowed")
    return [_stop(item, key) for item in items]


def _stop(item: object, key: str) -> str:
    if not isinstance(item, str):
        raise FieldError(key, f"must hold strings only, not {show(item)}")
    if not 1 <= len(check_text(item, key).encode()) <= MAX_STOP_BYTES:
        raise FieldError(key, f"must hold strings of 1 to {MAX_STOP_BYTES} bytes")
    return item


def check_text(text: str, key: str) -> str:
    """Return `text`, or raise when UTF-8 cannot carry it (JSON allows half of a surrogate pair)."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise FieldError(
            key, f"holds half of a surrogate pair at character {exc.start}; use whole characters"
        ) from None
    return text


def show(value: object) -> str:
    """`value` for an error message, short, with its type where that is the point."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        return f'the string "{value[:32]}{"..." if len(value) > 32 else ""}"'
    if isinstance(value, int | float):
        return f"{value:.6g}" if isinstance(value, float) or abs(value) > 10**18 else str(value)
    names: dict[str, str] = {"NoneType": "null", "list": "a list", "dict": "an object"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")

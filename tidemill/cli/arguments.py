"""Arguments that are more than a word: `KEY=VALUE` pairs."""

import json
from collections.abc import Iterable
from typing import Any

from tidemill.errors import Reason, TidemillError


def parse_pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """`KEY=VALUE` texts as a dictionary."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise TidemillError(Reason.INVALID_ARGUMENT, f"{option} {text!r} is not of the form KEY=VALUE")
        if key in pairs:
            raise TidemillError(Reason.INVALID_ARGUMENT, f"{option} {key} is given twice")
        pairs[key] = value
    return pairs


def parse_sampling(texts: Iterable[str]) -> dict[str, Any]:
    """Sampling parameters; values are JSON, and whatever is not JSON is a string, as in `stop=END`."""
    return {key: _value(text) for key, text in parse_pairs(texts, "--sampling").items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text

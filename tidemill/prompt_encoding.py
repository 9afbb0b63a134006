"""The stored encoding of many prompts at once, at the speed of copying them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tidemill.encoding import encode_prompt

_SEPARATOR = b"\0"
_CONTROLS = 0x20
_ESCAPES = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t"))
_COMMON_CONTROLS = (0x09, 0x0A, 0x0D)
_HEAD, _TAIL = encode_prompt("|").split(b"|")


def encode_prompts(prompts: Sequence[str]) -> list[bytes]:
    """`tidemill.encoding.encode_prompt` of each."""
    if not prompts:
        return []
    text = _SEPARATOR.decode().join(prompts).encode()
    # A control character other than those has an escape of its own form; NUL, if it is in a prompt, shows here too.
    if _rare_controls(text) != len(prompts) - 1:
        return [encode_prompt(prompt) for prompt in prompts]
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    text = text.replace(_SEPARATOR, _TAIL + _SEPARATOR + _HEAD)
    return (_HEAD + text + _TAIL).split(_SEPARATOR)


def _rare_controls(text: bytes) -> int:
    found: Any = np.frombuffer(text, dtype=np.uint8)
    controls = found[found < _CONTROLS]
    return len(controls) - sum(int(np.count_nonzero(controls == common)) for common in _COMMON_CONTROLS)

"""An engine's own words about why it did not load or died, and whether they mean that memory ran out.

vLLM's engine core is a process of its own. What it dies of at start is in its log alone: the exception in its parent
says "see root cause above". So the parent's output files are read from where they ended before the load.
"""

import os
import re
from pathlib import Path

__all__ = ["EngineLoadError", "last_line", "log_ends", "out_of_memory", "own_words", "root_cause"]

_MOST_CHARACTERS = 500
_READ_BYTES = 1 << 18
# `(EngineCore pid=12) ERROR 11-21 17:24:58 [core.py:1510] ` before the line itself.
_PREFIX = re.compile(r"^\([^)]*pid=\d+\)\s*(?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s?)?")
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)(?:: .*)?$")
_VAGUE = "Engine core initialization failed"
_MEMORY = re.compile(
    r"out of memory|OutOfMemory|MemoryError|can't allocate memory|cannot allocate memory|not enough memory"
    r"|Available memory on node .* is less than|Free memory on device .* is less than",
    re.IGNORECASE,
)
_KILLED = re.compile(r"Failed core proc\(s\): \{[^}]*: -9\b")


class EngineLoadError(RuntimeError):
    """The engine did not start; its own words."""


def log_ends() -> dict[str, int]:
    """The files that this process's output goes to, and where they end, in bytes."""
    ends: dict[str, int] = {}
    for descriptor in (1, 2):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_file():
            ends[str(path)] = path.stat().st_size
    return ends


def root_cause(exc: BaseException, ends: dict[str, int]) -> str:
    """Why the engine did not start: the error, or where it only points to the log, the last error logged since."""
    text = str(exc).strip()
    if _VAGUE not in text:
        return text or type(exc).__name__
    logged = [line for path, end in ends.items() for line in _errors(path, end) if _VAGUE not in line]
    return f"{logged[-1]}{_signal(text)}" if logged else text


def own_words(exc: BaseException) -> str:
    """The last line of what an engine, Ray or we say, at most 500 characters."""
    if isinstance(exc, TimeoutError):
        return "the engine did not load in time: raise TIDEMILL_INFERENCE_LOAD_SECONDS"
    cause = getattr(exc, "cause", None)
    return last_line(cause if isinstance(cause, Exception) else exc)


def last_line(exc: BaseException, without: tuple[str, ...] = ()) -> str:
    """The last line of an error, at most 500 characters; its type where it says nothing.

    Args:
        without: beginnings of lines that do not count.
    """
    lines = [line for line in str(exc).strip().splitlines() if not line.startswith(without)]
    return (lines[-1] if lines else type(exc).__name__)[:_MOST_CHARACTERS]


def out_of_memory(words: str) -> bool:
    """Whether the words mean that the engine did not fit into memory."""
    return bool(_MEMORY.search(words) or _KILLED.search(words))


def _errors(path: str, start: int) -> list[str]:
    with Path(path).open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - _READ_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    found = (_PREFIX.sub("", line).strip() for line in lines)
    return [line for line in found if _ERROR.match(line)]


def _signal(text: str) -> str:
    return " (the kernel killed the engine's process)" if _KILLED.search(text) else ""

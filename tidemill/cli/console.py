"""What the command prints: results on standard output, everything for people on standard error."""

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.errors import TidemillError

_ERASE = "\x1b[K"


class _LiveLine:
    """The last line of the terminal, drawn again and again; other lines are printed above it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._text = ""

    def draw(self, text: str) -> None:
        with self._lock:
            self._text = text[: shutil.get_terminal_size().columns - 1]
            sys.stderr.write(f"\r{_ERASE}{self._text}")
            sys.stderr.flush()

    def print_above(self, text: str) -> None:
        with self._lock:
            sys.stderr.write(f"\r{_ERASE}{text}\n{self._text}" if self._text else f"{text}\n")
            sys.stderr.flush()

    def end(self) -> None:
        with self._lock:
            if self._text:
                sys.stderr.write("\n")
                self._text = ""


@dataclass
class _Speech:
    json: bool = False


_live, _speech = _LiveLine(), _Speech()


def note(text: str) -> None:
    """A line for people, on standard error. May be called from any thread."""
    _live.print_above(text)


def draw_live(text: str) -> None:
    """Show `text` as the live line of a terminal, in place of the one before."""
    _live.draw(text)


def end_live() -> None:
    """Leave the live line as it is and go on below it."""
    _live.end()


def speak_json(wanted: bool) -> bool:
    """Print the error that ends the command as JSON, if that is wanted; returns `wanted`."""
    _speech.json = wanted
    return wanted


def fail(failure: TidemillError) -> None:
    """The error that ends the command, on standard error: a line, or with `--json` an object on a line."""
    if not _speech.json:
        error(failure.message)
        return
    fields = {"reason": failure.reason, "message": failure.message, "metadata": failure.metadata}
    note(json.dumps({"error": fields}, ensure_ascii=False, sort_keys=True))


def error(text: str) -> None:
    """An error, on standard error."""
    red, plain = ("\x1b[31m", "\x1b[0m") if colours(sys.stderr) else ("", "")
    note(f"{red}error:{plain} {text}")


def emit(text: str) -> None:
    """A line of the result, on standard output."""
    print(text, flush=True)


def emit_json(value: Any) -> None:
    """The result as JSON on standard output, indented for a terminal."""
    emit(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None, sort_keys=True))


def colours(stream: Any) -> bool:
    """Whether `stream` is a terminal that wants colours (https://no-color.org)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def emit_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns on standard output, wide enough for their longest cell."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        emit("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

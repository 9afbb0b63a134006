"""What the command prints: results on standard output, everything for people on standard error."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def note(text: str) -> None:
    """A line for people, on standard error."""
    print(text, file=sys.stderr, flush=True)


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

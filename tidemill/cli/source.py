"""The rows that `tidemill submit` sends: a file, checked as a whole before, or standard input as it comes."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NoReturn

from tidemill.cli.output import ENDPOINT_LABEL
from tidemill.client.jsonl import InputLine, check_file, open_input, read_lines
from tidemill.client.requests import Endpoint
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import row_pb2

_LABEL_OF = {
    Endpoint.CHAT: "chat",
    Endpoint.COMPLETION: "completions",
    Endpoint.EMBEDDING: "embeddings",
    Endpoint.CLASSIFICATION: "classifications",
    Endpoint.SCORE: "scores",
}


@dataclass
class Source:
    """Rows to send, and what is known of them before.

    Attributes:
        path: the file; None for standard input, which can be read once only.
        total: number of rows; None for standard input.
        label: value of the job's endpoint label: `chat`, `completions`, `embeddings`, `classifications`, `scores` or
            `mixed`.
    """

    path: Path | None
    model: str
    total: int | None
    label: str
    _stdin: Iterator[InputLine] = field(default_factory=lambda: iter(()))
    _is_chat: bytearray = field(default_factory=bytearray)

    @property
    def labels(self) -> dict[str, str]:
        """What later commands need to know about the rows."""
        return {ENDPOINT_LABEL: self.label}

    def rows(self) -> Iterator[row_pb2.Row]:
        """All rows in order; of a file from its beginning at each call."""
        if self.path is None:
            yield from self._note(self._stdin)
            return
        with open_input(self.path) as stream:
            yield from self._note(read_lines(stream, self.path.name, self.model))

    def endpoint_of(self, index: int) -> Endpoint:
        """Chat, or completion, of row `index`, once it was read; answers of other kinds show theirs themselves."""
        return Endpoint.CHAT if self._is_chat[index] else Endpoint.COMPLETION

    def _note(self, lines: Iterator[InputLine]) -> Iterator[row_pb2.Row]:
        self._is_chat.clear()
        for item in lines:
            endpoint = item.request.endpoint
            if self.path is None and _LABEL_OF[endpoint] != self.label:
                _refuse_mixed(item.line)
            self._is_chat.append(endpoint is Endpoint.CHAT)
            yield item.request.row


def open_source(file: str, model: str | None) -> Source:
    """The rows in `file`, or on standard input for `-`; raises for the first fault of a file."""
    return _from_stdin(model) if file == "-" else _from_file(Path(file), model)


def _from_file(path: Path, model: str | None) -> Source:
    if path.exists() and not path.is_file():
        raise TidemillError(Reason.INVALID_FILE, f"{path} is not a regular file; pipe its rows in: ... | submit -")
    summary = check_file(path, model)
    if model is None and len(summary.models) > 1:
        names = ", ".join(sorted(summary.models)[:3])
        raise TidemillError(
            Reason.INVALID_FILE, f"{path.name} names several models ({names}); submit a file for each model"
        )
    chosen = model or next(iter(summary.models), None) or _no_model()
    labels = [_LABEL_OF[endpoint] for endpoint in summary.endpoints]
    return Source(path, chosen, summary.rows, labels[0] if len(labels) == 1 else "mixed")


def _from_stdin(model: str | None) -> Source:
    lines = read_lines(sys.stdin.buffer, "stdin", model)
    first = next(lines)
    chosen = model or first.request.model or _no_model()
    return Source(None, chosen, None, _LABEL_OF[first.request.endpoint], chain([first], lines))


def _no_model() -> NoReturn:
    raise TidemillError(
        Reason.INVALID_ARGUMENT, "no model is named; add --model (`tidemill models list` shows what there is)"
    )


def _refuse_mixed(line: int) -> NoReturn:
    message = f"stdin line {line}: rows of several kinds are mixed; submit each kind on its own, or submit a file"
    raise TidemillError(Reason.INVALID_FILE, message, metadata={"file": "stdin", "line": line})

"""Reading a JSONL file of requests: OpenAI batch lines or plain `{"prompt": ...}` lines, a line at a time.

Every error is a TidemillError whose message names file, line, key and remedy and whose metadata has `file`, `line` and
`key`.
"""

import codecs
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tidemill.client.distinct import DistinctIds
from tidemill.client.parameters import FieldError
from tidemill.client.requests import Endpoint, ParsedRequest, parse_request
from tidemill.errors import Reason, TidemillError

MAX_LINE_BYTES = 4 << 20

# What the first bytes of a file that is not text give away.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is gzip; unpack it first: gunzip FILE"),
    (b"\x28\xb5\x2f\xfd", "is zstd; unpack it first: unzstd FILE"),
    (b"PK\x03\x04", "is a zip archive; unpack it first: unzip FILE"),
    (b"PAR1", "is Parquet; write it as JSONL first"),
    (codecs.BOM_UTF16_LE, "is UTF-16; save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "is UTF-16; save it as UTF-8"),
    (b"[", "is a JSON array, not JSONL; write one object a line: jq -c '.[]' FILE"),
)


@dataclass(frozen=True)
class InputLine:
    """A request and the line, counted from 1, that it stands on."""

    line: int
    request: ParsedRequest


@dataclass(frozen=True)
class FileSummary:
    """What a valid file holds: its rows, the endpoints they are for and the models they name."""

    rows: int
    endpoints: frozenset[Endpoint]
    models: frozenset[str]


def check_file(path: Path, model: str | None = None) -> FileSummary:
    """Read the whole file and return what it holds, or raise for its first fault; uses bounded memory."""
    rows, endpoints, models = 0, set[Endpoint](), set[str]()
    with open_input(path) as stream, DistinctIds() as ids:
        for item in read_lines(stream, path.name, model):
            rows += 1
            endpoints.add(item.request.endpoint)
            models |= {item.request.model} if item.request.model else set()
            ids.add(item.request.row.custom_id, item.line)
        if duplicate := ids.first_duplicate():
            first, second = duplicate
            problem = f"is the same as on line {first}; make every custom_id unique in the file"
            refuse(path.name, second, "custom_id", problem, Reason.INVALID_FILE)
    return FileSummary(rows, frozenset(endpoints), frozenset(models))


def open_input(path: Path) -> BinaryIO:
    """Open `path` for reading; INVALID_FILE says why it cannot be."""
    try:
        return path.open("rb")
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        raise TidemillError(Reason.INVALID_FILE, f"cannot read {path}: {why}", metadata={"file": path}) from None


def read_lines(stream: BinaryIO, name: str, model: str | None = None) -> Iterator[InputLine]:
    """The requests in `stream`, whose `name` is for messages; blank lines, CRLF and a byte order mark are tolerated.

    A line that names another model than `model` is refused. Duplicate ids are not looked for, see `check_file`.
    """
    found = False
    for number, raw in _raw_lines(stream, name):
        request = _parse_line(raw, name, number, first=not found)
        found = True
        if model and request.model and request.model != model:
            problem = f'is "{request.model}" while the job is for "{model}"; submit a job for each model'
            refuse(name, number, "body.model", problem, Reason.INVALID_FILE)
        yield InputLine(number, request)
    if not found:
        raise TidemillError(
            Reason.INVALID_FILE, f"{name} has no rows; write one JSON object a line", metadata={"file": name}
        )


def line_of_row(path: Path, index: int) -> int | None:
    """The line that holds row `index`, counted from 0; None when the file has fewer rows."""
    with open_input(path) as stream:
        for position, (number, _) in enumerate(_raw_lines(stream, path.name)):
            if position == index:
                return number
    return None


def _raw_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            _check_magic(raw, name)
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if len(raw) > MAX_LINE_BYTES:
            refuse(name, number, "", f"the line is longer than {MAX_LINE_BYTES >> 20} MiB; shorten the prompt")
        if raw.strip():
            yield number, raw


def _check_magic(raw: bytes, name: str) -> None:
    for magic, problem in _MAGIC:
        if raw.startswith(magic):
            message = f"{name} {problem.replace('FILE', name)}"
            raise TidemillError(Reason.INVALID_FILE, message, metadata={"file": name, "line": 1})


def _parse_line(raw: bytes, name: str, number: int, *, first: bool) -> ParsedRequest:
    try:
        return parse_request(decode_json(raw.decode()), f"row-{number}")
    except FieldError as exc:
        refuse(name, number, exc.key, exc.problem, exc.reason)
    except UnicodeDecodeError as exc:
        refuse(name, number, "", f"is not UTF-8 (byte {exc.start} is 0x{raw[exc.start]:02x}); save it as UTF-8")
    except RecursionError:
        refuse(name, number, "", "is nested too deeply")
    except ValueError as exc:
        why = exc.msg + f" at column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else str(exc)
        remedy = "the file must be JSONL: one JSON object a line" if first else "write one JSON object a line"
        refuse(name, number, "", f"is not JSON ({why}); {remedy}")


def decode_json(text: str) -> object:
    """The value in `text`; FieldError for a key that stands twice, ValueError for what is not JSON."""
    return json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant, parse_float=_finite)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise FieldError(key[:64], "stands twice in one object; keep one of them")
            seen.add(key)
    return fields


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:32]} is too large a number")
    return value


def refuse(
    file: str, line: int, key: str, problem: str, reason: Reason = Reason.INVALID_FILE, *, unit: str = "line"
) -> NoReturn:
    """Raise the fault of a line, or of what else `unit` calls the parts of the file, counted from 1."""
    place = f'{file} {unit} {line}, "{key}"' if key else f"{file} {unit} {line}"
    metadata = {"file": file, unit: line, **({"key": key} if key else {})}
    # A wrong value in a file makes the file invalid; an unsupported parameter keeps its own reason.
    reason = Reason.INVALID_FILE if reason is Reason.INVALID_ARGUMENT else reason
    # A key may hold half of a surrogate pair, which no terminal can print.
    message = f"{place}: {problem}".encode(errors="backslashreplace").decode()
    raise TidemillError(reason, message, metadata=metadata) from None

"""Progress of model downloads, which the inference service writes to its log, told to whoever watches `tidemill up`."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_EVENT = "model download"
_SECONDS = 1.0
_MIB = 1 << 20


class DownloadProgress:
    """Follows the log at `path` from its beginning in a thread; `tell` gets a line for each report in it."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = path, tell
        self._offset = 0
        self._rest = b""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="downloads", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._done.wait(_SECONDS):
            for line in self._new_lines():
                if text := describe(line):
                    self._tell(text)

    def _new_lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as log:
                log.seek(self._offset)
                data = log.read()
        except FileNotFoundError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines


def describe(line: bytes) -> str | None:
    """The progress that a log line reports, in words; None for any other line."""
    if _EVENT.encode() not in line:
        return None
    try:
        fields: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    if fields.get("event") != _EVENT:
        return None
    model, total, done = fields.get("model"), fields.get("weight_bytes") or 0, fields.get("bytes")
    size = f"{total / _MIB:,.0f} MiB" if total else "unknown size"
    if done is None:
        return f"downloading {model}, {size}"
    share = f" ({min(done / total, 1):.0%})" if total else ""
    return f"downloading {model}: {done / _MIB:,.0f} of {size}{share}"

"""The input rows of a job in order, each checked against its own digest, one row group in memory at a time."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from typing import Any, NamedTuple

from tidemill import segments
from tidemill.digests import row_digest
from tidemill.errors import TidemillError
from tidemill.manifest import SegmentEntry
from tidemill.store import ObjectStore
from tidemill.verify.distinct import DistinctSample
from tidemill.verify.report import Fault, Report
from tidemill.verify.stored import fault_of

_COLUMNS = ("row_index", "custom_id", "request", "digest")


class Asked(NamedTuple):
    """An input row: the caller's key, its digest made anew, and what stands for its prompt in a search for echoes."""

    custom_id: str
    digest: bytes
    prompt: bytes


class InputReader:
    """Reads the segments of an input manifest in order; what cannot be read is reported, and its rows are None."""

    def __init__(self, store: ObjectStore, entries: Sequence[SegmentEntry], rows: int, report: Report) -> None:
        self._store = store
        self._report = report
        self._row_count = rows
        self._ids = DistinctSample()
        self._rows = self._read_all(entries)

    def take(self, count: int) -> list[Asked | None]:
        """The next rows; fewer at the end of the input."""
        return list(islice(self._rows, count))

    def close(self) -> None:
        """Report custom ids that stand twice, once all rows were taken."""
        if extra := self._ids.repeats().extra:
            self._report.add(Fault.CUSTOM_ID_TWICE, f"{extra} rows of the input repeat the custom_id of an earlier row")

    def _read_all(self, entries: Sequence[SegmentEntry]) -> Iterator[Asked | None]:
        expected, seen = 0, set[str]()
        for entry in entries:
            if entry.key in seen:
                self._report.add(Fault.SEGMENT_TWICE, f"segment {entry.key} is listed twice", entry.key)
            seen.add(entry.key)
            if entry.start != expected:
                text = (
                    f"segment {entry.key} starts at row {entry.start}, not {expected}: segments overlap or leave a gap"
                )
                self._report.add(Fault.SEGMENT_ORDER, text, entry.key)
            yield from self._read(entry)
            expected = entry.start + entry.rows
        if expected != self._row_count:
            text = f"the segments end at row {expected}, the manifest counts {self._row_count} rows"
            self._report.add(Fault.SEGMENT_ORDER, text)

    def _read(self, entry: SegmentEntry) -> Iterator[Asked | None]:
        index, end = entry.start, entry.start + entry.rows
        try:
            batches = segments.read_batches(
                self._store, entry.key, sha256=bytes.fromhex(entry.sha256), columns=_COLUMNS
            )
            for table in batches:
                yield from self._checked(table, index, entry.key)[: max(0, end - index)]
                index += table.num_rows
        except (TidemillError, ValueError, KeyError) as exc:
            self._report.add(fault_of(self._store, entry.key, exc), str(getattr(exc, "message", exc)), entry.key)
            yield from repeat(None, max(0, end - index))
            return
        if index != end:
            text = f"segment {entry.key} holds {index - entry.start} rows, the manifest counts {entry.rows}"
            self._report.add(Fault.SEGMENT_ROWS, text, entry.key)
            yield from repeat(None, max(0, end - index))

    def _checked(self, table: Any, start: int, key: str) -> list[Asked]:
        asked: list[Asked] = []
        columns = (table.column(name).to_pylist() for name in _COLUMNS)
        for place, (index, custom_id, request, digest) in enumerate(zip(*columns, strict=True), start):
            found = row_digest(custom_id, request)
            if found != digest:
                self._report.add(Fault.ROW_CHANGED, f"input row {place} is not what its digest says", key)
            if index != place:
                self._report.add(Fault.ROW_OUT_OF_PLACE, f"input row {index} stands in the place of row {place}", key)
            self._ids.add(hashlib.blake2b(custom_id.encode(), digest_size=8).digest())
            asked.append(Asked(custom_id, found, prompt_mark(_prompt(request))))
        return asked


def prompt_mark(text: str) -> bytes:
    """16 bytes that stand for a text, space around it left out; empty for no text."""
    trimmed = text.strip()
    return hashlib.blake2b(trimmed.encode(), digest_size=16).digest() if trimmed else b""


def _prompt(request: bytes) -> str:
    """What the row asked: its prompt, or the last message of its chat."""
    fields: Any = json.loads(request)
    messages = fields.get("messages")
    return messages[-1]["content"] if messages else fields.get("prompt", "")

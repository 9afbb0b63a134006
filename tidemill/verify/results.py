"""The results of a job, a chunk at a time: each row once, unchanged, and the answer to its own request."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidemill import digests, segments
from tidemill.chunk_index import ChunkIndex
from tidemill.errors import TidemillError
from tidemill.manifest import OutputManifest, PartEntry
from tidemill.output_columns import OUTPUT_FIELDS
from tidemill.outputs import Output
from tidemill.store import ObjectStore
from tidemill.v1 import row_pb2
from tidemill.verify.distinct import DistinctSample
from tidemill.verify.inputs import Asked, prompt_mark
from tidemill.verify.report import Fault, Report
from tidemill.verify.stored import fault_of

_ROW = ("row_index", "custom_id", "request_digest", "status", "error_code", "output_digest")
_COUNTED = ("prompt_tokens", "output_tokens", "cached_tokens")
_ORIGIN = ("model_digest", "engine_build", "engine_record")
_COLUMNS = (*_ROW, *_COUNTED, *_ORIGIN, "text", *(item.name for item in OUTPUT_FIELDS))
_SUCCEEDED = row_pb2.ROW_STATUS_SUCCEEDED
_OUTCOMES = {
    row_pb2.ROW_STATUS_SUCCEEDED: "succeeded",
    row_pb2.ROW_STATUS_FAILED: "failed",
    row_pb2.ROW_STATUS_CANCELLED: "cancelled",
    row_pb2.ROW_STATUS_EXPIRED: "expired",
}

Engine = tuple[str, str, str]


@dataclass(frozen=True)
class Chunk:
    """The parts of one chunk, and of those that it was halved into."""

    start: int
    rows: int
    parts: list[PartEntry] = field(default_factory=list[PartEntry])


def chunks_of(document: OutputManifest, report: Report) -> list[Chunk]:
    """The manifest's parts by chunk in row order."""
    index, seen = ChunkIndex(Chunk), set[str]()
    for part in document.parts:
        if part.key in seen:
            report.add(Fault.SEGMENT_TWICE, f"part {part.key} is listed twice", part.key)
            continue
        seen.add(part.key)
        index.of(part.chunk_start, part.chunk_rows).parts.append(part)
    return list(index)


@dataclass
class Sums:
    """What goes by while the results are read."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    usage: Counter[str] = field(default_factory=Counter[str])
    engines: Counter[Engine] = field(default_factory=Counter[Engine])
    answers: DistinctSample = field(default_factory=DistinctSample)
    empty: int = 0
    echoes: int = 0


class ChunkChecker:
    """Checks the rows of one chunk against what was asked."""

    def __init__(self, store: ObjectStore, sums: Sums, report: Report) -> None:
        self._store = store
        self._sums = sums
        self._report = report

    def leaves(self, chunk: Chunk, asked: Sequence[Asked | None]) -> list[bytes | None]:
        """Merkle leaves of the chunk's rows in order, None where a row has no result; what is wrong is reported."""
        leaves: list[bytes | None] = [None] * len(asked)
        for part in chunk.parts:
            for table in self._tables(part):
                self._check(table, chunk, asked, leaves, part.key)
        missing = [chunk.start + place for place, leaf in enumerate(leaves) if leaf is None]
        if missing:
            first, last = missing[0], missing[-1]
            text = f"{len(missing)} rows between row {first} and row {last} have no result"
            self._report.add(Fault.RESULT_MISSING, text)
        return leaves

    def _tables(self, part: PartEntry) -> Iterator[Any]:
        rows = 0
        try:
            for table in segments.read_batches(self._store, part.key, sha256=bytes.fromhex(part.sha256)):
                rows += table.num_rows
                yield segments.with_later_columns(table).select(_COLUMNS)
        except (TidemillError, ValueError, KeyError) as exc:
            self._report.add(fault_of(self._store, part.key, exc), str(getattr(exc, "message", exc)), part.key)
            return
        if rows != part.rows:
            text = f"part {part.key} holds {rows} rows, the manifest counts {part.rows}"
            self._report.add(Fault.SEGMENT_ROWS, text, part.key)

    def _check(
        self, table: Any, chunk: Chunk, asked: Sequence[Asked | None], leaves: list[bytes | None], key: str
    ) -> None:
        columns = {name: table.column(name).to_pylist() for name in (*_ROW, *_COUNTED, *_ORIGIN)}
        rows = zip(*(columns[name] for name in _ROW), strict=True)
        origins = zip(*(columns[name] for name in _ORIGIN), strict=True)
        for row, output, origin in zip(rows, segments.outputs(table), origins, strict=True):
            place = row[0] - chunk.start
            if not 0 <= place < len(asked):
                self._report.add(Fault.RESULT_INVENTED, f"there is a result of row {row[0]}, which {key} has not", key)
            elif leaves[place] is not None:
                self._report.add(Fault.RESULT_TWICE, f"row {row[0]} has more than one result", key)
            else:
                leaves[place] = self._row(row, output, origin, asked[place], key)
        for name in _COUNTED:
            self._sums.usage[name] += sum(columns[name])

    def _row(self, row: Any, output: Output, origin: Engine, asked: Asked | None, key: str) -> bytes:
        index, custom_id, request, status, code, digest = row
        if asked is not None and (custom_id != asked.custom_id or request != asked.digest):
            self._report.add(Fault.RESULT_OF_ANOTHER_ROW, f"the result of row {index} answers another request", key)
        outcome = _OUTCOMES.get(status)
        if outcome is None:
            self._report.add(Fault.STATUS_UNKNOWN, f"row {index} has the unknown status {status}", key)
        else:
            self._sums.outcomes[outcome] += 1
        if status == _SUCCEEDED:
            self._answer(index, output, origin, asked, key)
        found = output.digest if status == _SUCCEEDED else digests.error_digest(code)
        if status != _SUCCEEDED and output != Output():
            self._report.add(Fault.ERROR_WITH_ANSWER, f"row {index} did not succeed, yet has an answer", key)
        if found != digest:
            self._report.add(Fault.OUTPUT_CHANGED, f"the output of row {index} is not what its digest says", key)
        if origin[0]:
            self._sums.engines[origin] += 1
        return digests.output_leaf(index, custom_id, status, found)

    def _answer(self, index: int, output: Output, origin: Engine, asked: Asked | None, key: str) -> None:
        if not origin[0] or not origin[1]:
            self._report.add(Fault.ANSWER_WITHOUT_MODEL, f"row {index} has an answer, but no model that gave it", key)
        if output == Output():
            self._report.add(Fault.ANSWER_WITHOUT_MODEL, f"row {index} succeeded without an answer", key)
        if output.text is None:
            return
        mark = prompt_mark(output.text)
        if not mark:
            self._sums.empty += 1
            return
        self._sums.answers.add(mark)
        if asked is not None and mark == asked.prompt:
            self._sums.echoes += 1

"""Parts: result rows of a lease that become visible together, one Parquet file each."""

import time
from collections.abc import Callable
from typing import Any

from services.inference import metrics
from services.inference.busy import Stay
from services.inference.held import HeldLease
from services.inference.identity import Record
from services.inference.link import SchedulerLink
from services.inference.store_link import StoreLink
from tidemill import rowset, segments, telemetry
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import row_pb2

__all__ = ["PartCutter", "PartWriter", "tally"]

tracer = telemetry.tracer(__name__)

_STATUS_NAMES = {
    row_pb2.ROW_STATUS_SUCCEEDED: "succeeded",
    row_pb2.ROW_STATUS_FAILED: "failed",
    row_pb2.ROW_STATUS_CANCELLED: "cancelled",
    row_pb2.ROW_STATUS_EXPIRED: "expired",
}


class PartCutter:
    """Collects result tables until a part is due: so many seconds after its first row."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._tables: list[Any] = []
        self._due_at = 0.0

    def add(self, table: Any) -> None:
        """Add results."""
        if not self._tables:
            self._due_at = self._clock() + self._seconds
        self._tables.append(table)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until a part is due, at least 0; None while there is nothing to cut."""
        return max(0.0, self._due_at - self._clock()) if self._tables else None

    def take(self) -> list[Any]:
        """What was collected."""
        tables, self._tables = self._tables, []
        return tables


def tally(table: Any) -> records_pb2.RowTally:
    """What result rows amount to."""
    statuses = table.column("status").to_pylist()
    counts = {name: statuses.count(status) for status, name in _STATUS_NAMES.items()}
    tokens = {name: sum(table.column(name).to_pylist()) for name in ("prompt_tokens", "output_tokens", "cached_tokens")}
    return records_pb2.RowTally(**counts, **tokens)


class PartWriter:
    """Writes and commits the parts of one chunk under one lease; a row is committed once, whatever it is given.

    Args:
        done: rows of the chunk that have a result already.
        first_part: number of the first part under this fence.
    """

    def __init__(
        self,
        held: HeldLease,
        store: StoreLink,
        link: SchedulerLink,
        *,
        chunk_start: int,
        chunk_rows: int,
        done: int,
        first_part: int = 0,
    ) -> None:
        self._held = held
        self._store = store
        self._link = link
        self._start = chunk_start
        self._rows = chunk_rows
        self.done = done
        self.next_part = first_part

    @property
    def complete(self) -> bool:
        """Every row of the chunk has a result."""
        return self.done == rowset.full(self._rows)

    async def commit(
        self,
        tables: list[Any],
        model_digest: str,
        engine_build: str,
        stay: Stay | None = None,
        record: Record | None = None,
    ) -> None:
        """Make the rows of these tables visible; rows that have a result already are dropped.

        Args:
            record: that of the engine that answered; None where none did.
            stay: the chunk's stay in the engine; the part takes the seconds gathered since the last one.

        Raises:
            LeaseVoidError: the lease ended; nothing of this part is visible.
        """
        table, rows = self._fresh(tables)
        if not rows:
            return
        with tracer.start_as_current_span("inference.commit") as span:
            span.set_attributes({"tidemill.part": self.next_part, "tidemill.rows": table.num_rows})
            part = await self._write(table, rows)
            if record is not None:
                part.engine_record, part.equal_answers = record.digest, record.equal_answers
            request = pb.CommitPartRequest(
                job=self._held.job,
                part=part,
                model_digest=model_digest,
                engine_build=engine_build,
                busy_seconds=stay.take() if stay else 0.0,
            )
            await self._link.commit(request, self._held.void)
        self.done |= rows
        self.next_part += 1
        _count(self._held.model, part.tally)

    def _fresh(self, tables: list[Any]) -> tuple[Any, int]:
        """The rows without a result as one table by row index, and their set."""
        import pyarrow as pa

        rows, wanted = 0, list[tuple[int, int]]()
        table = pa.concat_tables(tables)
        for position, index in enumerate(table.column("row_index").to_pylist()):
            bit = 1 << (index - self._start)
            if not (self.done | rows) & bit:
                rows |= bit
                wanted.append((index, position))
        return table.take(pa.array([position for _, position in sorted(wanted)], pa.int64())), rows

    async def _write(self, table: Any, rows: int) -> records_pb2.PartRef:
        fence = self._held.lease.fence
        key = f"{self._held.folder}/{self._start:012d}-{fence}-{self.next_part:05d}.parquet"
        stored = await self._store.call(lambda: segments.write_segment(self._store.store, key, table), self._held.void)
        return records_pb2.PartRef(
            key=key,
            chunk_start=self._start,
            chunk_rows=self._rows,
            fence=fence,
            part_number=self.next_part,
            row_bitmap=rowset.to_bytes(rows, self._rows),
            sha256=stored.sha256,
            tally=tally(table),
            row_count=table.num_rows,
        )


def _count(model: str, counts: records_pb2.RowTally) -> None:
    for name in _STATUS_NAMES.values():
        if value := getattr(counts, name):
            metrics.ROWS.labels(model, name).inc(value)
    for kind in ("prompt", "output", "cached"):
        metrics.TOKENS.labels(model, kind).inc(getattr(counts, f"{kind}_tokens"))

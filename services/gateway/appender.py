"""The only writer of a job's rows: checks frames, buffers them, cuts segments, moves the durable end.

Received rows wait in a buffer of bounded size. A task of its own cuts segments from it and makes them durable, so that
frames that arrive meanwhile share the next segment.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from opentelemetry import trace

from services.gateway import metrics
from services.gateway.append_limits import MemoryBudget
from services.gateway.buffer import RowBuffer
from services.gateway.changes import Changes
from services.gateway.custom_ids import CustomIdIndex
from services.gateway.frames import Frame, FrameChecker, Refusal, duplicate_id, refuse_rows, refuse_shape
from services.gateway.input_segments import StoredRows, write_input_segment
from services.gateway.mismatch import compare
from services.gateway.prepared import Prepared
from services.gateway.scheduler import Scheduler
from tidemill import telemetry
from tidemill.errors import Reason
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2
from tidemill.merkle import Frontier
from tidemill.names import JobName
from tidemill.store import ObjectStore

tracer = telemetry.tracer(__name__)


@dataclass(frozen=True)
class Accepted:
    """The frame will be stored; an acknowledgement follows once it is."""


@dataclass(frozen=True)
class Duplicate:
    """The frame repeats durable rows."""


Outcome = Accepted | Duplicate | Refusal


@dataclass(frozen=True)
class SegmentLimits:
    """When a segment is cut: at so many rows or request bytes, or so many seconds after its first row."""

    rows: int
    size: int
    linger: float


@dataclass(frozen=True)
class WriterState:
    """What a writer starts from."""

    job: JobName
    spec: records_pb2.JobSpec
    epoch: int
    frontier: Frontier
    segments: list[records_pb2.SegmentRef]


class Appender:
    """Appends to one job under one writer epoch. `append` and `flush` are called by one task at a time."""

    def __init__(
        self,
        start: WriterState,
        *,
        checker: FrameChecker,
        store: ObjectStore,
        scheduler: Scheduler,
        limits: SegmentLimits,
        budget: MemoryBudget,
        on_durable: Callable[[int], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.job = start.job
        self.epoch = start.epoch
        self.frontier = start.frontier
        self.received_end = self.durable_end = start.frontier.count
        self.stored = StoredRows(store, start.segments)
        self._start = start
        self._checker = checker
        self._store = store
        self._scheduler = scheduler
        self._limits = limits
        self._budget = budget
        # Ends and sizes of the accepted frames that are not durable.
        self._held: deque[tuple[int, int]] = deque()
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._ids = CustomIdIndex(store, start.segments)
        self._pending: set[bytes] = set()
        self._settled: list[list[bytes]] = []
        self._buffer = RowBuffer(limits.rows, limits.size)
        self._flush_to = 0
        self._failure: BaseException | None = None
        self._changes = Changes()
        self._task = asyncio.create_task(self._write_segments())
        self._task.add_done_callback(self._writer_ended)

    async def append(self, frame: Frame) -> Outcome:
        """Take a frame in, or say why not. Waits while the buffer is full; raises what ended the writer."""
        self._check_alive()
        if refusal := refuse_shape(frame) or self._refuse_gap(frame):
            return refusal
        if frame.end <= self.received_end:
            return await self._compare(frame)
        return await self._accept(frame)

    async def flush(self) -> int:
        """Wait until every accepted row is durable; returns the durable end."""
        target = self._flush_to = self.received_end
        self._changes.notify()
        await self._changes.until(lambda: self.durable_end >= target or self._failure is not None)
        self._check_alive()
        return self.durable_end

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be made durable."""
        return self.durable_end == self.received_end or self._failure is not None

    def fail(self, error: BaseException) -> None:
        """End this writer: calls raise `error` from now on, and rows that are not durable are given up."""
        if self._failure is None:
            self._failure = error
            self._task.cancel()
            self._release(self.received_end)
            self._changes.notify()
            self._on_failure(error)

    def close(self) -> None:
        """Stop without a word; rows that are not durable are given up."""
        self._task.cancel()
        self._release(self.received_end)

    def _release(self, end: int) -> None:
        while self._held and self._held[0][0] <= end:
            self._budget.give(self._held.popleft()[1])

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _refuse_gap(self, frame: Frame) -> Refusal | None:
        if frame.offset == self.received_end or frame.end <= self.received_end:
            return None
        kind = "starts behind" if frame.offset > self.received_end else "straddles"
        return Refusal(
            Reason.OFFSET_GAP,
            f"the frame of rows {frame.offset} to {frame.end} {kind} the end, {self.received_end}; go on there",
        )

    async def _compare(self, frame: Frame) -> Outcome:
        if frame.end > self.durable_end:
            await self.flush()
        return await compare(self._checker, self.stored, frame) or Duplicate()

    async def _accept(self, frame: Frame) -> Outcome:
        await self._changes.until(lambda: not self._buffer.full or self._failure is not None)
        self._check_alive()
        size = frame.message.ByteSize()
        await self._budget.take(size)
        accepted = False
        try:
            refusal = await self._take_in(frame)
            accepted = refusal is None
        finally:
            if not accepted:
                self._budget.give(size)
        if refusal is not None:
            return refusal
        self._held.append((frame.end, size))
        return Accepted()

    async def _take_in(self, frame: Frame) -> Refusal | None:
        self._forget_settled()
        prepared = await asyncio.to_thread(self._examine, frame)
        self._check_alive()
        if isinstance(prepared, Refusal):
            return prepared
        if refusal := _refuse_duplicates(prepared, self._pending, "that was sent before"):
            return refusal
        self._pending.update(prepared.ids)
        self._buffer.add(prepared)
        self.received_end = frame.end
        self._changes.notify()
        return None

    def _forget_settled(self) -> None:
        # Only here, and never while a frame is examined: an id is always in the index or pending, or in both.
        for ids in self._settled:
            self._pending.difference_update(ids)
        self._settled.clear()

    def _examine(self, frame: Frame) -> Prepared | Refusal:
        prepared = self._checker.prepare(frame)
        if isinstance(prepared, Refusal):
            return prepared
        return _refuse_duplicates(prepared, self._ids.stored(prepared.ids), "that is stored already") or prepared

    async def _write_segments(self) -> None:
        while True:
            await self._changes.until(lambda: len(self._buffer) > 0)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.linger):
                    await self._changes.until(lambda: self._buffer.full or self._flush_to > self.durable_end)
            await self._store_segment(self._buffer.cut())

    async def _store_segment(self, batch: Prepared) -> None:
        started = time.monotonic()
        parent = telemetry.context_from_traceparent(self._start.spec.traceparent)
        links = [trace.Link(trace.get_current_span().get_span_context())]
        with tracer.start_as_current_span("append segment", parent, links=links) as span:
            segment, frontier = await asyncio.to_thread(self._write, batch)
            end = await self._commit(segment, frontier)
            span.set_attributes({"tidemill.job": str(self.job), "tidemill.row_start": segment.start})
            span.set_attributes({"tidemill.rows": segment.count, "tidemill.bytes": segment.size_bytes})
        await asyncio.to_thread(self._ids.add_segment, segment, b"".join(batch.ids))
        self._settled.append(batch.ids)
        self.stored.segments.append(segment)
        self.frontier = frontier
        self._moved(end)
        _measure(segment, time.monotonic() - started)

    def _write(self, batch: Prepared) -> tuple[records_pb2.SegmentRef, Frontier]:
        segment = write_input_segment(self._store, self.job, self._start.epoch, batch)
        return segment, self.frontier.extend(batch.digests)

    async def _commit(self, segment: records_pb2.SegmentRef, frontier: Frontier) -> int:
        request = scheduler_service_pb2.CommitSegmentRequest(
            job=str(self.job),
            writer_epoch=self._start.epoch,
            segment=segment,
            merkle_frontier=frontier.peaks,
        )
        return await self._scheduler.commit_segment(request)

    def _moved(self, end: int) -> None:
        self.durable_end = end
        self._release(end)
        self._on_durable(end)
        self._changes.notify()

    def _writer_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)


def _refuse_duplicates(prepared: Prepared, known: set[bytes], where: str) -> Refusal | None:
    if known.isdisjoint(prepared.ids):
        return None
    keys = zip(prepared.custom_ids, prepared.ids, strict=True)
    errors = [
        duplicate_id(custom_id, index, where)
        for index, (custom_id, key) in enumerate(keys, prepared.start)
        if key in known
    ]
    return refuse_rows(errors, len(prepared))


def _measure(segment: records_pb2.SegmentRef, seconds: float) -> None:
    metrics.ROWS_APPENDED.inc(segment.count)
    metrics.BYTES_APPENDED.inc(segment.size_bytes)
    metrics.SEGMENT_ROWS.observe(segment.count)
    metrics.SEGMENT_SECONDS.observe(seconds)

"""`ImportRows`: the rows of a file, through the same writer as rows that are streamed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import NoReturn

from services.gateway import metrics
from services.gateway.appender import Appender, Refusal
from services.gateway.auth import Principal
from services.gateway.drain import Drain
from services.gateway.frames import Frame
from services.gateway.row_reading import FileFrame, read_frames
from services.gateway.scheduler import Scheduler
from services.gateway.submit import ignore_end, ignore_failure
from services.gateway.transfers import Transfers, format_name, format_of
from services.gateway.writers import Writers
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.v1 import job_service_pb2, transfer_pb2

Request = transfer_pb2.ImportRowsRequest


class ImportRows:
    """Handles imports."""

    def __init__(self, writers: Writers, scheduler: Scheduler, transfers: Transfers, drain: Drain) -> None:
        self._writers = writers
        self._scheduler = scheduler
        self._transfers = transfers
        self._drain = drain

    async def handle(self, principal: Principal, request: Request) -> transfer_pb2.ImportRowsResponse:
        """Append all rows of the file; a call that broke off goes on when it is repeated.

        The metadata of an error that came after the first row name the job's durable end, as `next_offset`.
        """
        name = principal.job(request.name)
        kind = format_name(format_of(request.format, request.uri))
        place = self._transfers.imports.find(request.uri, principal.tenant)
        if request.start_offset < 0:
            raise _invalid_start(f"is {request.start_offset}; it must be 0 or more")
        record = await self._scheduler.get_job(str(name))
        with self._transfers.slot(), metrics.OPEN_STREAMS.labels("import").track_inprogress():
            transfers = self._transfers
            with await asyncio.to_thread(place.open, transfers.spool, transfers.most_bytes) as file:
                appender = await self._writers.open(name, ignore_end, ignore_failure)
                try:
                    async with contextlib.aclosing(read_frames(file, kind, place.name, record.spec.model)) as frames:
                        return await _Import(appender, request.start_offset).run(self._drain.until(frames))
                finally:
                    self._writers.close(appender)


class _Import:
    """One file on its way into one job."""

    def __init__(self, appender: Appender, start: int) -> None:
        self._appender = appender
        self._start = start
        self._stored_end = appender.durable_end
        self._offset = start

    async def run(self, frames: AsyncIterator[FileFrame]) -> transfer_pb2.ImportRowsResponse:
        if self._start > self._stored_end:
            raise _invalid_start(f"is {self._start}, but the job has {self._stored_end} rows; go on there")
        try:
            async for frame in frames:
                await self._append(frame)
            end = await self._appender.flush()
        except TidemillError as exc:
            exc.metadata["next_offset"] = str(await self._durable())
            raise
        return transfer_pb2.ImportRowsResponse(
            row_count=self._offset - self._start,
            next_offset=end,
            duplicate_rows=min(self._offset, self._stored_end) - self._start,
        )

    async def _append(self, frame: FileFrame) -> None:
        # No frame straddles the end of what was stored before.
        below = max(0, self._stored_end - self._offset)
        for piece in (slice(0, below), slice(below, None)):
            rows = frame.rows[piece]
            if rows:
                message = job_service_pb2.AppendRowsRequest(offset=self._offset, rows=rows)
                outcome = await self._appender.append(Frame(self._offset, message.rows, message))
                if isinstance(outcome, Refusal):
                    _refuse(outcome, self._offset, frame.lines[piece])
                self._offset += len(rows)

    async def _durable(self) -> int:
        # The writer may be what failed; what is durable is so all the same.
        with contextlib.suppress(TidemillError):
            await self._appender.flush()
        return self._appender.durable_end


def _refuse(refusal: Refusal, offset: int, lines: Sequence[int]) -> NoReturn:
    metrics.FRAMES_REFUSED.labels(refusal.reason).inc()
    found = [(lines[error.index - offset], error) for error in refusal.row_errors]
    violations = [
        FieldViolation(f"rows[{error.index}].{error.field}".rstrip("."), f"line {line}: {error.code}: {error.message}")
        for line, error in found
    ]
    metadata = {"line": found[0][0], "row": found[0][1].index} if found else {}
    place = f"line {found[0][0]}: " if found else ""
    raise TidemillError(refusal.reason, f"{place}{refusal.message}", metadata=metadata, violations=violations)


def _invalid_start(description: str) -> TidemillError:
    return TidemillError(
        Reason.OFFSET_OUT_OF_RANGE if "rows" in description else Reason.INVALID_ARGUMENT,
        f"start_offset {description}",
        violations=[FieldViolation("start_offset", description)],
    )

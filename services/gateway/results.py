"""`ReadResults`: results in frames, while the job runs or after it."""

from collections.abc import AsyncIterator

from services.gateway import metrics
from services.gateway.auth import Principal
from services.gateway.convert import is_terminal
from services.gateway.drain import Drain
from services.gateway.limits import RESULT_FRAME_BYTES
from services.gateway.result_fields import fields_of
from services.gateway.result_readers import CompletionReader, InputReader, ResultReader, Results
from services.gateway.scheduler import Scheduler
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.names import JobName
from tidemill.store import ObjectStore
from tidemill.v1 import job_service_pb2, row_pb2

Request = job_service_pb2.ReadResultsRequest
Response = job_service_pb2.ReadResultsResponse


class ReadResults:
    """Handles readers of results."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore, drain: Drain) -> None:
        self._scheduler = scheduler
        self._store = store
        self._drain = drain

    async def handle(self, principal: Principal, request: Request) -> AsyncIterator[Response]:
        """Frames from `start_offset` on.

        Without `follow` the stream ends with what there is: in INPUT order up to the first unfinished row, so that
        the last `next_offset` always resumes without a gap.
        """
        name = principal.job(request.name)
        _check(request)
        reader = self._reader(name, request)
        record = await self._scheduler.get_job(str(name))
        _check_start(request, record)
        frames = self._follow(reader, name, record) if request.follow else self._once(reader, record)
        order = job_service_pb2.ResultOrder.Name(request.order or job_service_pb2.RESULT_ORDER_INPUT)
        with metrics.OPEN_STREAMS.labels("results").track_inprogress():
            async for frame in self._drain.until(frames) if request.follow else frames:
                metrics.RESULTS_READ.labels(order.removeprefix("RESULT_ORDER_").lower()).inc(len(frame.results))
                yield frame

    def _reader(self, name: JobName, request: Request) -> ResultReader:
        by_completion = request.order == job_service_pb2.RESULT_ORDER_COMPLETION
        kind = CompletionReader if by_completion else InputReader
        return kind(self._scheduler, self._store, str(name), request.start_offset, fields_of(request.read_mask))

    async def _once(self, reader: ResultReader, record: records_pb2.JobRecord) -> AsyncIterator[Response]:
        async for frame in _frames(reader):
            yield frame
        if is_terminal(reader.state):
            yield _end(reader, record)

    async def _follow(
        self, reader: ResultReader, name: JobName, record: records_pb2.JobRecord
    ) -> AsyncIterator[Response]:
        async for snapshot in self._scheduler.watch_job(str(name), 0):
            record = snapshot
            async for frame in _frames(reader):
                yield frame
            if is_terminal(reader.state):
                break
        yield _end(reader, record)


def _check(request: Request) -> None:
    if request.order not in job_service_pb2.ResultOrder.values():
        raise _invalid("order", f"order {request.order} is unknown; use INPUT or COMPLETION")
    if request.start_offset < 0:
        raise _invalid("start_offset", f"start_offset is {request.start_offset}; it must be 0 or more")


def _invalid(field: str, description: str) -> TidemillError:
    return TidemillError(Reason.INVALID_ARGUMENT, description, violations=[FieldViolation(field, description)])


def _check_start(request: Request, record: records_pb2.JobRecord) -> None:
    by_completion = request.order == job_service_pb2.RESULT_ORDER_COMPLETION
    end = record.result_count if by_completion else record.next_offset
    if request.start_offset > end:
        kind = "finished rows" if by_completion else "rows"
        raise TidemillError(
            Reason.OFFSET_OUT_OF_RANGE,
            f"start_offset is {request.start_offset}, but the job has {end} {kind}; start at {end} or below",
            metadata={"job": request.name, "start_offset": request.start_offset, "end": end},
        )


async def _frames(reader: ResultReader) -> AsyncIterator[Response]:
    offset = reader.position
    async for rows in reader.read():
        for piece in _cut(rows):
            yield Response(offset=offset, results=piece, next_offset=offset + len(piece))
            offset += len(piece)


def _cut(rows: Results) -> list[list[row_pb2.RowResult]]:
    pieces: list[list[row_pb2.RowResult]] = [[]]
    room = RESULT_FRAME_BYTES
    for row in rows:
        size = row.ByteSize()
        if size > room and pieces[-1]:
            pieces.append([])
            room = RESULT_FRAME_BYTES
        pieces[-1].append(row)
        room -= size
    return pieces


def _end(reader: ResultReader, record: records_pb2.JobRecord) -> Response:
    if reader.position != record.next_offset:
        raise TidemillError(
            Reason.DATA_CORRUPT,
            f"job {record.spec.name} ended with {record.next_offset} rows, but results end at {reader.position}",
            metadata={"job": record.spec.name, "rows": record.next_offset, "results": reader.position},
        )
    return Response(offset=reader.position, next_offset=reader.position, end=True)

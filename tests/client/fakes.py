"""A gateway in memory that fails on demand: it breaks streams, withholds acknowledgements, refuses frames."""

# ruff: noqa: N802 - gRPC names the methods

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_status import rpc_status as codec

from tidemill.crc import rows_crc32c
from tidemill.errors import Reason, TidemillError
from tidemill.status import rpc_status
from tidemill.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc, row_pb2

JOB = "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
pb = job_service_pb2
# Methods that are not here answer UNIMPLEMENTED; the type would ask for every one of them.
_Servicer: Any = job_service_pb2_grpc.JobServiceServicer


@dataclass
class Fault:
    """What happens to one frame: `act` gets the gateway, the frame and the context, and may abort or answer."""

    act: Callable[["FakeGateway", pb.AppendRowsRequest, Any], Iterator[pb.AppendRowsResponse]]


@dataclass
class FakeGateway(_Servicer):
    """One job. `faults` maps the number of a frame, counted over all streams from 0, to what goes wrong with it.

    Attributes:
        acks_every: frames between two acknowledgements; the last frame of a pause is always acknowledged.
        create_failures, watch_failures, result_failures: so many calls end UNAVAILABLE first.
    """

    faults: dict[int, Fault] = field(default_factory=dict[int, Fault])
    never_finishes: bool = False
    create_failures: int = 0
    watch_failures: int = 0
    result_failures: int = 0
    rows: list[row_pb2.Row] = field(default_factory=list[row_pb2.Row])
    streams: int = 0
    frames: int = 0
    largest_frame: int = 0
    metadata: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    sealed: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 5 << 20)])
        job_service_pb2_grpc.add_JobServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def stop(self) -> None:
        self.server.stop(None).wait()

    def job(self) -> job_pb2.Job:
        state = job_pb2.JOB_STATE_RECEIVING
        if self.sealed is not None:
            state = job_pb2.JOB_STATE_QUEUED if self.never_finishes else job_pb2.JOB_STATE_SUCCEEDED
        count = len(self.rows)
        counts = job_pb2.RowCounts(total=count, succeeded=count if self.sealed else 0)
        return job_pb2.Job(name=JOB, model="m", state=state, row_counts=counts, revision=count + 1)

    def CreateJob(self, request: pb.CreateJobRequest, context: Any) -> job_pb2.Job:
        self._note(context)
        if self.create_failures > 0:
            self.create_failures -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return self.job()

    def SealJob(self, request: pb.SealJobRequest, context: Any) -> job_pb2.Job:
        self._note(context)
        if request.row_count != len(self.rows):
            message = f"{len(self.rows)} rows are stored"
            context.abort_with_status(codec.to_status(rpc_status(TidemillError(Reason.ROW_COUNT_MISMATCH, message))))
        self.sealed = request.row_count
        return self.job()

    def GetJob(self, request: pb.GetJobRequest, context: Any) -> job_pb2.Job:
        return self.job()

    def AppendRows(
        self, request_iterator: Iterator[pb.AppendRowsRequest], context: Any
    ) -> Iterator[pb.AppendRowsResponse]:
        self._note(context)
        self.streams += 1
        for position, frame in enumerate(request_iterator):
            if position == 0:
                assert frame.job == JOB
            if not frame.rows:
                yield ack(len(self.rows))
                continue
            number, self.frames = self.frames, self.frames + 1
            self.largest_frame = max(self.largest_frame, len(frame.rows))
            fault = self.faults.get(number)
            yield from fault.act(self, frame, context) if fault else self.take(frame)

    def take(self, frame: pb.AppendRowsRequest) -> Iterator[pb.AppendRowsResponse]:
        """What a healthy gateway does with a frame."""
        assert frame.crc32c == rows_crc32c(frame.rows)
        end = len(self.rows)
        if frame.offset == end:
            self.rows.extend(frame.rows)
            yield ack(len(self.rows))
        elif frame.offset + len(frame.rows) <= end:
            same = self.rows[frame.offset : frame.offset + len(frame.rows)] == list(frame.rows)
            yield ack(end, duplicate=True) if same else refusal(frame, Reason.ROW_CONTENT_MISMATCH, end)
        else:
            yield refusal(frame, Reason.OFFSET_GAP, end)

    def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> Iterator[pb.WatchJobResponse]:
        if self.watch_failures > 0:
            self.watch_failures -= 1
            running = self.job()
            running.state, running.revision = job_pb2.JOB_STATE_RUNNING, request.after_revision + 1
            yield pb.WatchJobResponse(job=running, revision=running.revision)
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        yield pb.WatchJobResponse(heartbeat=True)
        if self.never_finishes:
            yield pb.WatchJobResponse(job=self.job(), revision=1)
        while self.sealed is None or self.never_finishes:
            if not context.is_active():
                return
            time.sleep(0.02)
        final = self.job()
        final.revision = request.after_revision + 1
        yield pb.WatchJobResponse(job=final, revision=final.revision)

    def ReadResults(self, request: pb.ReadResultsRequest, context: Any) -> Iterator[pb.ReadResultsResponse]:
        position, total = request.start_offset, len(self.rows)
        while position < total:
            end = min(position + 3, total)
            results = [
                row_pb2.RowResult(row_index=index, custom_id=self.rows[index].custom_id)
                for index in range(position, end)
            ]
            yield pb.ReadResultsResponse(offset=position, results=results, next_offset=end)
            position = end
            if self.result_failures > 0:
                self.result_failures -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        yield pb.ReadResultsResponse(offset=total, next_offset=total, end=True)

    def _note(self, context: Any) -> None:
        with self.lock:
            self.metadata.append(dict(context.invocation_metadata()))


def ack(end: int, *, duplicate: bool = False) -> pb.AppendRowsResponse:
    return pb.AppendRowsResponse(ack=pb.AppendAck(next_offset=end, duplicate=duplicate))


def refusal(frame: pb.AppendRowsRequest, reason: Reason, expected: int, **fields: Any) -> pb.AppendRowsResponse:
    error = pb.FrameError(offset=frame.offset, code=11, reason=reason, message=f"refused: {reason}", **fields)
    error.expected_offset = expected
    return pb.AppendRowsResponse(error=error)


def break_before() -> Fault:
    """The stream breaks before the frame is stored."""

    def act(gateway: FakeGateway, frame: pb.AppendRowsRequest, context: Any) -> Iterator[pb.AppendRowsResponse]:
        context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
        yield from ()

    return Fault(act)


def break_after(kept: float = 1.0) -> Fault:
    """This share of the frame is stored and the stream breaks before its acknowledgement."""

    def act(gateway: FakeGateway, frame: pb.AppendRowsRequest, context: Any) -> Iterator[pb.AppendRowsResponse]:
        if frame.offset == len(gateway.rows):
            gateway.rows.extend(frame.rows[: int(len(frame.rows) * kept)])
        context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
        yield from ()

    return Fault(act)


def hold(seconds: float) -> Fault:
    """The acknowledgement takes its time."""

    def act(gateway: FakeGateway, frame: pb.AppendRowsRequest, context: Any) -> Iterator[pb.AppendRowsResponse]:
        time.sleep(seconds)
        yield from gateway.take(frame)

    return Fault(act)


def refuse(reason: Reason) -> Fault:
    """The frame is refused in band; it would be welcome at its offset all the same."""

    def act(gateway: FakeGateway, frame: pb.AppendRowsRequest, context: Any) -> Iterator[pb.AppendRowsResponse]:
        yield refusal(frame, reason, len(gateway.rows))

    return Fault(act)


def refuse_row(position: int) -> Fault:
    """One row of the frame is bad."""

    def act(gateway: FakeGateway, frame: pb.AppendRowsRequest, context: Any) -> Iterator[pb.AppendRowsResponse]:
        error = row_pb2.RowError(
            index=frame.offset + position,
            custom_id=frame.rows[position].custom_id,
            code="PARAMETER_OUT_OF_RANGE",
            field="sampling.temperature",
            message="temperature is 3; it must be from 0 to 2",
        )
        yield refusal(frame, Reason.INVALID_ROWS, len(gateway.rows), row_errors=[error])

    return Fault(act)

"""Appending rows over `AppendRows`: frames go ahead of their acknowledgements, and a broken stream is resumed."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from tidemill.client.frames import Frame, cut_frames
from tidemill.client.transport import Transport
from tidemill.crc import rows_crc32c
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.v1 import job_service_pb2, row_pb2

# What is sent and not yet durable is kept for a resume, so it is bounded.
PENDING_FRAMES = 32
PENDING_BYTES = 16 << 20
# A stream without any answer for so long is broken, whatever the connection says. The gateway waits up to a minute
# for a scheduler that is away.
_STALL_SECONDS = 120.0
_CLOSE_SECONDS = 5.0
_REWINDS = 5
_REWOUND = frozenset({Reason.OFFSET_GAP, Reason.CHECKSUM_MISMATCH})
_STREAM_END = None


class RowsRefusedError(TidemillError):
    """The gateway refused rows; `row_errors` are at most 100 of them, and nothing of their frame is stored."""

    def __init__(self, job: str, frame: job_service_pb2.FrameError) -> None:
        self.row_errors = list(frame.row_errors)
        first = self.row_errors[0]
        more = f" (and {len(self.row_errors) - 1} more)" if len(self.row_errors) > 1 else ""
        place = f"row {first.index} ({first.custom_id!r})" + (f", {first.field}" if first.field else "")
        super().__init__(
            _reason(frame),
            f"{place}: {first.message}{more}",
            metadata={"job": job, "row_index": first.index, "code": first.code},
            violations=[_violation(item) for item in self.row_errors],
        )


def _violation(item: row_pb2.RowError) -> FieldViolation:
    field = f"rows[{item.index}].{item.field}" if item.field else f"rows[{item.index}]"
    return FieldViolation(field, f"{item.code}: {item.message}")


def _reason(frame: job_service_pb2.FrameError) -> Reason:
    return Reason(frame.reason) if frame.reason in Reason.__members__ else Reason.INVALID_ARGUMENT


class _AppendStream:
    """One AppendRows call: a queue feeds it and a thread reads its answers."""

    def __init__(self, transport: Transport, job: str, trace: str) -> None:
        self.durable = 0
        self.answers = 0
        self._failure: TidemillError | None = None
        self._job, self._transport = job, transport
        self._requests: queue.SimpleQueue[job_service_pb2.AppendRowsRequest | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        requests = iter(self._requests.get, _STREAM_END)
        self._call: Any = transport.jobs.AppendRows(requests, metadata=transport.metadata(trace))
        self._reader = threading.Thread(target=self._read, name="tidemill-acks", daemon=True)
        self._reader.start()

    def open(self) -> None:
        """Bind the job and learn the durable end."""
        self._requests.put(job_service_pb2.AppendRowsRequest(job=self._job))
        self.wait(lambda: self.answers > 0)

    def send(self, frame: Frame) -> None:
        """Queue a frame; a failure shows in `wait`."""
        crc = rows_crc32c(frame.rows)
        self._requests.put(job_service_pb2.AppendRowsRequest(offset=frame.offset, rows=frame.rows, crc32c=crc))

    def wait(self, done: Callable[[], bool]) -> None:
        """Return once `done()`; raises what ended the stream."""
        end = time.monotonic() + _STALL_SECONDS
        with self._changed:
            while self._failure or not done():
                if self._failure:
                    raise self._failure
                if time.monotonic() > end:
                    message = f"no acknowledgement of {self._job} within {_STALL_SECONDS:g} s"
                    raise TidemillError(Reason.DEADLINE_EXCEEDED, message)
                # Short waits, so that Ctrl-C is seen.
                self._changed.wait(0.5)

    def close(self) -> None:
        """End the stream in order: what the gateway accepted becomes durable."""
        self._requests.put(_STREAM_END)
        self._reader.join(timeout=_CLOSE_SECONDS)
        self._call.cancel()

    def cancel(self) -> None:
        """End the stream at once."""
        self._requests.put(_STREAM_END)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for response in self._call:
                self._note(response)
            self._end(TidemillError(Reason.UNAVAILABLE, "the gateway closed the append stream", retry_after=0.1))
        except grpc.RpcError as exc:
            self._end(self._transport.typed(exc))

    def _note(self, response: job_service_pb2.AppendRowsResponse) -> None:
        with self._changed:
            self.answers += 1
            if response.HasField("error"):
                # Only the first refusal counts: the frames sent behind it are refused as gaps.
                self._failure = self._failure or _refusal(self._job, response.error)
            else:
                self.durable = max(self.durable, response.ack.next_offset)
            self._changed.notify_all()

    def _end(self, failure: TidemillError) -> None:
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()


class Appender:
    """Sends all rows of one job and returns once they are durable."""

    def __init__(self, transport: Transport, job: str, trace: str) -> None:
        self._transport, self._job, self._trace = transport, job, trace
        self._pending: deque[Frame] = deque()
        self._pending_bytes = 0
        self._backoff = transport.backoff()
        self._rewinds = 0
        self._stream = self._connect()

    def append(self, rows: Iterable[row_pb2.Row]) -> int:
        """Append `rows`, which start at row 0 of the job, and return how many there are.

        Rows that the job has already are sent as well, and the gateway compares them. Raises RowsRefusedError for bad
        rows, other TidemillErrors when the service stays away or another writer took over. What was acknowledged stays.
        """
        stored, end = self._stream.durable, 0
        try:
            for frame in cut_frames(rows, boundary=stored):
                end = frame.end
                if end <= stored:
                    self._survive(lambda frame=frame: self._compare(frame))
                else:
                    self._survive(self._wait_for_room)
                    self._push(frame)
            while self._pending:
                self._survive(self._wait_for_first)
            self._stream.close()
        except RowsRefusedError:
            # In good order, so that the frames before the refused one become durable.
            self._stream.close()
            raise
        except BaseException:
            self._stream.cancel()
            raise
        return end

    def _survive(self, step: Callable[[], None]) -> None:
        """Do `step`; when the stream breaks, resume on a new one and do it again."""
        while True:
            try:
                step()
                return
            except TidemillError as exc:
                self._judge(exc)
                self._stream.cancel()
                self._resume()

    def _judge(self, error: TidemillError) -> None:
        """Wait before another attempt, or raise `error` when none can help."""
        if error.reason not in _REWOUND:
            self._backoff.pause(error)
            return
        self._rewinds += 1
        if self._rewinds > _REWINDS:
            raise error

    def _connect(self) -> _AppendStream:
        while True:
            stream = _AppendStream(self._transport, self._job, self._trace)
            try:
                stream.open()
            except TidemillError as exc:
                stream.cancel()
                self._backoff.pause(exc)
            else:
                return stream

    def _resume(self) -> None:
        """Open a new stream at the durable end and send again what lies beyond it."""
        self._stream = self._connect()
        pending = list(self._pending)
        if pending and not pending[0].offset <= self._stream.durable <= pending[-1].end:
            raise TidemillError(
                Reason.WRITER_SUPERSEDED,
                f"{self._job} ends at row {self._stream.durable}, but this client appended rows {pending[0].offset} to "
                f"{pending[-1].end}; another client is writing to the job",
                metadata={"job": self._job},
            )
        self._settle()
        for frame in self._pending:
            self._stream.send(frame.since(self._stream.durable))

    def _push(self, frame: Frame) -> None:
        self._pending.append(frame)
        self._pending_bytes += frame.size
        self._stream.send(frame)

    def _settle(self) -> None:
        """Forget the frames that are durable."""
        while self._pending and self._pending[0].end <= self._stream.durable:
            self._pending_bytes -= self._pending.popleft().size
            self._rewinds = 0
            self._backoff.reset()

    def _wait_for_room(self) -> None:
        self._settle()
        while len(self._pending) >= PENDING_FRAMES or self._pending_bytes >= PENDING_BYTES:
            self._wait_for_first()

    def _wait_for_first(self) -> None:
        # A resume may have found everything durable.
        if not self._pending:
            return
        first = self._pending[0].end
        self._stream.wait(lambda: self._stream.durable >= first)
        self._settle()

    def _compare(self, frame: Frame) -> None:
        """Send a frame whose rows are stored already and wait until the gateway has compared them."""
        before = self._stream.answers
        self._stream.send(frame)
        self._stream.wait(lambda: self._stream.answers > before)


def _refusal(job: str, frame: job_service_pb2.FrameError) -> TidemillError:
    if frame.row_errors:
        return RowsRefusedError(job, frame)
    metadata = {"job": job, "offset": frame.offset, "expected_offset": frame.expected_offset}
    return TidemillError(_reason(frame), frame.message, metadata=metadata)

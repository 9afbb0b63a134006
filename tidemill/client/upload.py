"""What an upload knows: the frames that are not durable yet, the answers of its stream, how it resumes after a fault.

Nothing here waits or sends: `append` drives it from threads, `aio_append` from an event loop.
"""

from collections import deque
from dataclasses import dataclass, field

from tidemill.client.frames import Frame
from tidemill.client.transport import Backoff
from tidemill.crc import rows_crc32c
from tidemill.errors import FieldViolation, Reason, RowsRefusedError, TidemillError
from tidemill.v1 import job_service_pb2, row_pb2

# What is sent and not yet durable is kept for a resume, so it is bounded.
PENDING_FRAMES = 32
PENDING_BYTES = 16 << 20
# A stream without any answer for so long is broken, whatever the connection says. The gateway waits up to a minute
# for a scheduler that is away.
STALL_SECONDS = 120.0
CLOSE_SECONDS = 5.0
_REWINDS = 5
_REWOUND = frozenset({Reason.OFFSET_GAP, Reason.CHECKSUM_MISMATCH})


def _rows_refused(job: str, frame: job_service_pb2.FrameError) -> RowsRefusedError:
    first = frame.row_errors[0]
    more = f" (and {len(frame.row_errors) - 1} more)" if len(frame.row_errors) > 1 else ""
    place = f"row {first.index} ({first.custom_id!r})" + (f", {first.field}" if first.field else "")
    return RowsRefusedError(
        _reason(frame),
        f"{place}: {first.message}{more}",
        metadata={"job": job, "row_index": first.index, "code": first.code},
        violations=[_violation(item) for item in frame.row_errors],
        row_errors=frame.row_errors,
    )


def _violation(item: row_pb2.RowError) -> FieldViolation:
    field = f"rows[{item.index}].{item.field}" if item.field else f"rows[{item.index}]"
    return FieldViolation(field, f"{item.code}: {item.message}")


def _reason(frame: job_service_pb2.FrameError) -> Reason:
    return Reason(frame.reason) if frame.reason in Reason.__members__ else Reason.INVALID_ARGUMENT


def _refusal(job: str, frame: job_service_pb2.FrameError) -> TidemillError:
    if frame.row_errors:
        return _rows_refused(job, frame)
    metadata = {"job": job, "offset": frame.offset, "expected_offset": frame.expected_offset}
    return TidemillError(_reason(frame), frame.message, metadata=metadata)


def request_of(frame: Frame) -> job_service_pb2.AppendRowsRequest:
    """The message that carries a frame."""
    return job_service_pb2.AppendRowsRequest(offset=frame.offset, rows=frame.rows, crc32c=rows_crc32c(frame.rows))


@dataclass
class StreamState:
    """What one AppendRows stream of `job` has answered.

    Attributes:
        durable: rows below it are stored.
        answers: messages received.
        failure: what ended the stream.
    """

    job: str
    durable: int = 0
    answers: int = 0
    failure: TidemillError | None = None

    def note(self, response: job_service_pb2.AppendRowsResponse) -> None:
        """Take an answer."""
        self.answers += 1
        if response.HasField("error"):
            # Only the first refusal counts: the frames sent behind it are refused as gaps.
            self.failure = self.failure or _refusal(self.job, response.error)
        else:
            self.durable = max(self.durable, response.ack.next_offset)

    def end(self, failure: TidemillError | None = None) -> None:
        """The stream is over, by `failure` or because the gateway closed it."""
        closed = TidemillError(Reason.UNAVAILABLE, "the gateway closed the append stream", retry_after=0.1)
        self.failure = self.failure or failure or closed

    def stalled(self) -> TidemillError:
        """The error of a stream that stays silent."""
        return TidemillError(Reason.DEADLINE_EXCEEDED, f"no acknowledgement of {self.job} within {STALL_SECONDS:g} s")


@dataclass
class Upload:
    """The frames of `job` that were sent and are not durable; `backoff` is told of progress."""

    job: str
    backoff: Backoff
    pending: deque[Frame] = field(default_factory=deque[Frame])
    _bytes: int = 0
    _rewinds: int = 0

    @property
    def full(self) -> bool:
        """No frame may be sent before an earlier one is durable."""
        return len(self.pending) >= PENDING_FRAMES or self._bytes >= PENDING_BYTES

    def push(self, frame: Frame) -> None:
        """Note that `frame` is sent."""
        if not self.pending:
            # What the caller took to make these rows was nobody's silence.
            self.backoff.reset()
        self.pending.append(frame)
        self._bytes += frame.size

    def settle(self, durable: int) -> None:
        """Forget the frames below `durable`."""
        while self.pending and self.pending[0].end <= durable:
            self._bytes -= self.pending.popleft().size
            self._rewinds = 0
            self.backoff.reset()

    def delay(self, error: TidemillError) -> float:
        """Seconds to wait before a new stream; raises `error` when none can help."""
        if error.reason not in _REWOUND:
            return self.backoff.delay(error)
        self._rewinds += 1
        if self._rewinds > _REWINDS:
            raise error
        return 0.0

    def resume(self, durable: int) -> list[Frame]:
        """What a new stream, which begins at `durable`, has to send again; WRITER_SUPERSEDED if that cannot be."""
        if self.pending and not self.pending[0].offset <= durable <= self.pending[-1].end:
            raise TidemillError(
                Reason.WRITER_SUPERSEDED,
                f"{self.job} ends at row {durable}, but this client appended rows {self.pending[0].offset} to "
                f"{self.pending[-1].end}; another client is writing to the job",
                metadata={"job": self.job},
            )
        self.settle(durable)
        return [frame.since(durable) for frame in self.pending]

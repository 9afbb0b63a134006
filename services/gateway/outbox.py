"""Answers of an append stream on their way to a client that may read slowly."""

from collections import deque
from collections.abc import AsyncIterator

from services.gateway.changes import Changes
from tidemill.v1 import job_service_pb2

_CAPACITY = 64

Response = job_service_pb2.AppendRowsResponse


class Outbox:
    """Answers in order, bounded: acknowledgements that wait merge into the newest, other answers hold up the reader of
    frames once 64 of them wait."""

    def __init__(self) -> None:
        self._queue: deque[Response] = deque()
        self._durable_end = 0
        self._ack_due = False
        self._closed = False
        self._error: BaseException | None = None
        self._changes = Changes()

    def start(self, durable_end: int) -> None:
        """Where the stream begins; nothing is said of it until somebody asks."""
        self._durable_end = durable_end

    def moved(self, durable_end: int) -> None:
        """Rows became durable."""
        self._durable_end = durable_end
        self._ack_due = True
        self._changes.notify()

    async def put(self, response: Response) -> None:
        """Add an answer. The offset of an acknowledgement is filled in when it leaves, so that it never falls back."""
        await self._changes.until(lambda: len(self._queue) < _CAPACITY or self._closed)
        self._queue.append(response)
        self._changes.notify()

    def close(self, error: BaseException | None = None) -> None:
        """No more answers; what waits is still sent, then `error` is raised. The first call counts."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._changes.notify()

    async def responses(self) -> AsyncIterator[Response]:
        """The answers until the outbox is closed and empty."""
        while True:
            await self._changes.until(lambda: bool(self._queue) or self._ack_due or self._closed)
            if self._queue:
                yield self._filled(self._queue.popleft())
                self._changes.notify()
            elif self._ack_due:
                yield self._filled(Response(ack=job_service_pb2.AppendAck()))
            elif self._error is not None:
                raise self._error
            else:
                return

    def _filled(self, response: Response) -> Response:
        if response.HasField("ack"):
            response.ack.next_offset = self._durable_end
            self._ack_due = False
        return response

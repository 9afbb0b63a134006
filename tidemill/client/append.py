"""Appending rows over `AppendRows`: frames go ahead of their acknowledgements, and a broken stream is resumed."""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from tidemill.client.frames import Frame, cut_frames
from tidemill.client.transport import Transport
from tidemill.client.upload import CLOSE_SECONDS, STALL_SECONDS, StreamState, Upload, request_of
from tidemill.errors import RowsRefusedError, TidemillError
from tidemill.v1 import job_service_pb2, row_pb2

_STREAM_END = None


class _AppendStream:
    """One AppendRows call: a queue feeds it and a thread reads its answers."""

    def __init__(self, transport: Transport, job: str, trace: str) -> None:
        self.state = StreamState(job)
        self._transport = transport
        self._requests: queue.SimpleQueue[job_service_pb2.AppendRowsRequest | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        requests = iter(self._requests.get, _STREAM_END)
        self._call: Any = transport.jobs.AppendRows(requests, metadata=transport.metadata(trace))
        self._reader = threading.Thread(target=self._read, name="tidemill-acks", daemon=True)
        self._reader.start()

    def open(self) -> None:
        """Bind the job and learn the durable end."""
        self._requests.put(job_service_pb2.AppendRowsRequest(job=self.state.job))
        self.wait(lambda: self.state.answers > 0)

    def send(self, frame: Frame) -> None:
        """Queue a frame; a failure shows in `wait`."""
        self._requests.put(request_of(frame))

    def wait(self, done: Callable[[], bool]) -> None:
        """Return once `done()`; raises what ended the stream."""
        end = time.monotonic() + STALL_SECONDS
        with self._changed:
            while self.state.failure or not done():
                if self.state.failure:
                    raise self.state.failure
                if time.monotonic() > end:
                    raise self.state.stalled()
                # Short waits, so that Ctrl-C is seen.
                self._changed.wait(0.5)

    def close(self) -> None:
        """End the stream in order: what the gateway accepted becomes durable."""
        self._requests.put(_STREAM_END)
        self._reader.join(timeout=CLOSE_SECONDS)
        self._call.cancel()

    def cancel(self) -> None:
        """End the stream at once."""
        self._requests.put(_STREAM_END)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for response in self._call:
                with self._changed:
                    self.state.note(response)
                    self._changed.notify_all()
            self._end(None)
        except grpc.RpcError as exc:
            self._end(self._transport.typed(exc))

    def _end(self, failure: TidemillError | None) -> None:
        with self._changed:
            self.state.end(failure)
            self._changed.notify_all()


class Appender:
    """Sends all rows of one job and returns once they are durable."""

    def __init__(self, transport: Transport, job: str, trace: str) -> None:
        self._transport, self._job, self._trace = transport, job, trace
        self._upload = Upload(job, transport.backoff())
        self._stream = self._connect()

    def append(self, rows: Iterable[row_pb2.Row]) -> int:
        """Append `rows`, which start at row 0 of the job, and return how many there are.

        Rows that the job has already are sent as well, and the gateway compares them. Raises RowsRefusedError for bad
        rows, other TidemillErrors when the service stays away or another writer took over. What was acknowledged stays.
        """
        stored, end = self._durable, 0
        try:
            for frame in cut_frames(rows, boundary=stored):
                end = frame.end
                if end <= stored:
                    self._survive(lambda frame=frame: self._compare(frame))
                else:
                    self._survive(self._wait_for_room)
                    self._upload.push(frame)
                    self._stream.send(frame)
            while self._upload.pending:
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

    @property
    def _durable(self) -> int:
        return self._stream.state.durable

    def _survive(self, step: Callable[[], None]) -> None:
        """Do `step`; when the stream breaks, resume on a new one and do it again."""
        while True:
            try:
                step()
                return
            except TidemillError as exc:
                time.sleep(self._upload.delay(exc))
                self._stream.cancel()
                self._stream = self._connect()
                for frame in self._upload.resume(self._durable):
                    self._stream.send(frame)

    def _connect(self) -> _AppendStream:
        while True:
            stream = _AppendStream(self._transport, self._job, self._trace)
            try:
                stream.open()
            except TidemillError as exc:
                stream.cancel()
                self._upload.backoff.pause(exc)
            else:
                return stream

    def _wait_for_room(self) -> None:
        self._upload.settle(self._durable)
        while self._upload.full:
            self._wait_for_first()

    def _wait_for_first(self) -> None:
        # A resume may have found everything durable.
        if not self._upload.pending:
            return
        first = self._upload.pending[0].end
        self._stream.wait(lambda: self._durable >= first)
        self._upload.settle(self._durable)

    def _compare(self, frame: Frame) -> None:
        """Send a frame whose rows are stored already and wait until the gateway has compared them."""
        before = self._stream.state.answers
        self._stream.send(frame)
        self._stream.wait(lambda: self._stream.state.answers > before)

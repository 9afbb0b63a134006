"""Appending rows over `AppendRows` in an event loop; what it knows and decides is `upload`'s, as for threads."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc

from tidemill.client.aio_transport import AioTransport
from tidemill.client.frames import Frame, cut_frames
from tidemill.client.upload import CLOSE_SECONDS, STALL_SECONDS, StreamState, Upload, request_of
from tidemill.errors import RowsRefusedError, TidemillError
from tidemill.v1 import job_service_pb2, row_pb2


class _AppendStream:
    """One AppendRows call; a task reads its answers."""

    def __init__(self, transport: AioTransport, job: str, trace: str) -> None:
        self.state = StreamState(job)
        self._transport = transport
        self._changed = asyncio.Event()
        self._call: Any = transport.jobs.AppendRows(metadata=transport.metadata(trace))
        self._reader = asyncio.create_task(self._read(), name="tidemill-acks")

    async def open(self) -> None:
        """Bind the job and learn the durable end."""
        await self._write(job_service_pb2.AppendRowsRequest(job=self.state.job))
        await self.wait(lambda: self.state.answers > 0)

    async def send(self, frame: Frame) -> None:
        """Write a frame; a failure shows in `wait`."""
        await self._write(request_of(frame))

    async def wait(self, done: Callable[[], bool]) -> None:
        """Return once `done()`; raises what ended the stream."""
        try:
            async with asyncio.timeout(STALL_SECONDS):
                while not self.state.failure and not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise self.state.stalled() from None
        if self.state.failure:
            raise self.state.failure

    async def close(self) -> None:
        """End the stream in order: what the gateway accepted becomes durable."""
        with suppress(grpc.RpcError, asyncio.InvalidStateError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._call.done_writing()
                await self._reader
        self.cancel()

    def cancel(self) -> None:
        """End the stream at once."""
        self._call.cancel()
        self._reader.cancel()

    async def _write(self, request: job_service_pb2.AppendRowsRequest) -> None:
        # A stream that is over says why through its reader. One that takes nothing any more is ended by that limit.
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._call.write(request)
        except TimeoutError:
            self.state.end(self.state.stalled())
        except (grpc.RpcError, asyncio.InvalidStateError):
            await asyncio.wait([self._reader], timeout=CLOSE_SECONDS)

    async def _read(self) -> None:
        try:
            async for response in self._call:
                self.state.note(response)
                self._changed.set()
            self.state.end()
        except grpc.RpcError as exc:
            self.state.end(self._transport.typed(exc))
        finally:
            self._changed.set()


class AioAppender:
    """Sends all rows of one job and returns once they are durable."""

    def __init__(self, transport: AioTransport, job: str, trace: str) -> None:
        self._transport, self._job, self._trace = transport, job, trace
        self._upload = Upload(job, transport.backoff())

    async def append(self, batches: AsyncIterator[list[row_pb2.Row]]) -> int:
        """Append the rows in `batches`, as `Appender.append` does, and return how many there are."""
        self._stream = await self._connect()
        stored, end = self._durable, 0
        try:
            async for batch in batches:
                for frame in cut_frames(batch, boundary=stored, start=end):
                    end = frame.end
                    await self._send(frame, stored)
            while self._upload.pending:
                await self._survive(self._wait_for_first)
            await self._stream.close()
        except RowsRefusedError:
            # In good order, so that the frames before the refused one become durable.
            await self._stream.close()
            raise
        except BaseException:
            self._stream.cancel()
            raise
        return end

    @property
    def _durable(self) -> int:
        return self._stream.state.durable

    async def _send(self, frame: Frame, stored: int) -> None:
        if frame.end <= stored:
            await self._survive(lambda: self._compare(frame))
            return
        await self._survive(self._wait_for_room)
        self._upload.push(frame)
        await self._stream.send(frame)

    async def _survive(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do `step`; when the stream breaks, resume on a new one and do it again."""
        while True:
            try:
                await step()
                return
            except TidemillError as exc:
                await asyncio.sleep(self._upload.delay(exc))
                self._stream.cancel()
                self._stream = await self._connect()
                for frame in self._upload.resume(self._durable):
                    await self._stream.send(frame)

    async def _connect(self) -> _AppendStream:
        while True:
            stream = _AppendStream(self._transport, self._job, self._trace)
            try:
                await stream.open()
            except TidemillError as exc:
                stream.cancel()
                await asyncio.sleep(self._upload.backoff.delay(exc))
            except BaseException:
                stream.cancel()
                raise
            else:
                return stream

    async def _wait_for_room(self) -> None:
        self._upload.settle(self._durable)
        while self._upload.full:
            await self._wait_for_first()

    async def _wait_for_first(self) -> None:
        # A resume may have found everything durable.
        if not self._upload.pending:
            return
        first = self._upload.pending[0].end
        await self._stream.wait(lambda: self._durable >= first)
        self._upload.settle(self._durable)

    async def _compare(self, frame: Frame) -> None:
        """Send a frame whose rows are stored already and wait until the gateway has compared them."""
        before = self._stream.state.answers
        await self._stream.send(frame)
        await self._stream.wait(lambda: self._stream.state.answers > before)

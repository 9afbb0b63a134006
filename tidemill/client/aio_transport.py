"""The channel to the gateway in an event loop."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import cached_property
from typing import Any, TypeVar

import grpc
import grpc.aio

from tidemill.client.calls import Call
from tidemill.client.cursors import Cursor
from tidemill.client.settings import Connection
from tidemill.client.transport import PATIENCE_SECONDS, Link, channel_options
from tidemill.errors import Reason, TidemillError
from tidemill.v1.admin_service_pb2_grpc import AdminServiceStub
from tidemill.v1.job_service_pb2_grpc import JobServiceStub
from tidemill.v1.model_service_pb2_grpc import ModelServiceStub
from tidemill.v1.quota_service_pb2_grpc import QuotaServiceStub

T = TypeVar("T")

_LOST_STATUS = "Internal error from Core"


class AioTransport(Link):
    """Stubs over one channel of the running event loop."""

    def __init__(self, connection: Connection, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__(connection, patience)
        self._connection = connection

    @cached_property
    def channel(self) -> grpc.aio.Channel:
        """Made by the first call, because a channel belongs to the loop that it is made in."""
        connection, options = self._connection, channel_options(self._connection)
        if connection.tls:
            return grpc.aio.secure_channel(connection.address, grpc.ssl_channel_credentials(connection.ca), options)
        return grpc.aio.insecure_channel(connection.address, options)

    @cached_property
    def jobs(self) -> Any:
        """Stub of the JobService; the generated ones serve both kinds of channel."""
        return JobServiceStub(self.channel)

    @cached_property
    def models(self) -> Any:
        """Stub of the ModelService."""
        return ModelServiceStub(self.channel)

    @cached_property
    def admin(self) -> Any:
        """Stub of the AdminService."""
        return AdminServiceStub(self.channel)

    @cached_property
    def quotas(self) -> Any:
        """Stub of the QuotaService."""
        return QuotaServiceStub(self.channel)

    def typed(self, exc: grpc.RpcError) -> TidemillError:
        """As for threads; besides, a write that failed as its stream ended is a broken stream."""
        error = super().typed(exc)
        # grpc.aio puts this in the place of the server's status (grpc/grpc#36066). The next stream tells what it was;
        # only that another writer took over is not told again: then this one takes over in turn, and its rows are
        # compared with the stored ones as ever.
        if error.reason is Reason.INTERNAL and error.message == _LOST_STATUS:
            return TidemillError(Reason.UNAVAILABLE, "the stream to the gateway broke", retry_after=0.1)
        return error

    async def call(self, call: Call[T], *, trace: str = "") -> T:
        """Make `call`; repeated while the service is away, at most for the patience. Raises TidemillError."""
        method: Callable[..., Awaitable[T]] = getattr(getattr(self, call.service), call.method)
        metadata, backoff = self.metadata(trace), self.backoff()
        while True:
            try:
                result = await method(call.request, timeout=self.timeout(call), metadata=metadata)
            except grpc.RpcError as exc:
                await asyncio.sleep(backoff.delay(self.typed(exc)))
            else:
                self.reached = True
                return result

    async def stream(self, cursor: Cursor[T], *, trace: str = "") -> AsyncGenerator[T]:
        """What `cursor` takes from its stream, which is opened again where it stood after a failure that may pass."""
        method, backoff = getattr(self.jobs, cursor.method), self.backoff()
        while True:
            call: Any = method(cursor.request(), timeout=cursor.timeout(), metadata=self.metadata(trace))
            try:
                async for response in call:
                    self.reached = True
                    backoff.reset()
                    for item in cursor.take(response):
                        yield item
                    if cursor.done:
                        return
                if not cursor.endless:
                    return
                error = self.ended()
            except grpc.RpcError as exc:
                error = self.typed(exc)
            finally:
                call.cancel()
            await asyncio.sleep(backoff.delay(error))

    async def close(self) -> None:
        """Close the channel; calls in progress end as cancelled."""
        if "channel" in self.__dict__:
            await self.channel.close(None)

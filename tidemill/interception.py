"""Wrapping the handlers of a `grpc.aio` server: what a call passes on its way to the code that answers it."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import grpc.aio

Unary = Callable[[Any, Any], Awaitable[Any]]
"""Handler of one answer: request or iterator of requests, context."""
Stream = Callable[[Any, Any], AsyncIterator[Any]]
"""Handler of many answers; an async generator."""

_OURS = "/tidemill."


class HandlerWrapper(cast("Any", grpc.aio).ServerInterceptor, ABC):
    """An interceptor for the methods of our services, where `takes` does not say otherwise; others pass untouched.

    Handlers are wrapped once and kept, because that of a method is the same for every call.
    """

    def __init__(self) -> None:
        self._wrapped: dict[str, Any] = {}

    def takes(self, method: str) -> bool:
        """Whether it wraps a method (`/package.Service/Method`)."""
        return method.startswith(_OURS)

    @abstractmethod
    def wrap_unary(self, method: str, behavior: Unary, *, streamed: bool) -> Unary:
        """What handles `method` (`package.Service/Method`) in place of `behavior`; `streamed`: requests come as an
        iterator."""

    @abstractmethod
    def wrap_stream(self, method: str, behavior: Stream, *, streamed: bool) -> Stream:
        """Likewise for a method that streams its answers."""

    def deserializer(self, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """What reads requests in place of `read`."""
        return read

    def serializer(self, write: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        """What writes answers in place of `write`."""
        return write

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Called by gRPC for each call."""
        method: str = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or not self.takes(method):
            return handler
        wrapped = self._wrapped[method] = self._wrap(method.lstrip("/"), handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        wrap = self.wrap_stream if handler.response_streaming else self.wrap_unary
        kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
        behavior = next(kind for kind in kinds if kind is not None)
        factory = _FACTORIES[handler.request_streaming, handler.response_streaming]
        return factory(
            wrap(method, behavior, streamed=handler.request_streaming),
            request_deserializer=self.deserializer(handler.request_deserializer),
            response_serializer=self.serializer(handler.response_serializer),
        )


_FACTORIES: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

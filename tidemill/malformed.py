"""Requests whose bytes are no message of their type: refused as INVALID_ARGUMENT, where gRPC itself says UNKNOWN.

A deserializer cannot end a call with a status of its own, so it hands on what it found instead of a message, and the
call's handler raises it.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from tidemill.errors import Reason, TidemillError
from tidemill.interception import HandlerWrapper, Stream, Unary

__all__ = ["WellFormed", "checked", "tolerant"]


class WellFormed(HandlerWrapper):
    """The innermost interceptor of a server, so that who may not call learns nothing of what was sent."""

    def deserializer(self, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """See `HandlerWrapper`."""
        return tolerant(read)

    def wrap_unary(self, method: str, behavior: Unary, *, streamed: bool) -> Unary:  # noqa: ARG002 - all alike
        """See `HandlerWrapper`."""

        async def handle(request: Any, context: Any) -> Any:
            return await behavior(checked(request), context)

        return handle

    def wrap_stream(self, method: str, behavior: Stream, *, streamed: bool) -> Stream:  # noqa: ARG002 - all alike
        """See `HandlerWrapper`."""

        def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            return behavior(checked(request), context)

        return handle


@dataclass(frozen=True)
class _Malformed:
    size: int

    def error(self) -> TidemillError:
        return TidemillError(
            Reason.INVALID_ARGUMENT,
            f"the request's {self.size} bytes are not a message of this method: check the protos it was made from, and "
            "that every string is UTF-8",
        )


def tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """`deserialize`, with bytes that it cannot read handed on for `checked` to refuse."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _Malformed(len(data))

    return read


def checked(request: Any) -> Any:
    """A request, or an iterator of requests, without those that could not be read; INVALID_ARGUMENT in their place."""
    if isinstance(request, Message):
        return request
    if isinstance(request, _Malformed):
        raise request.error()
    return _Checked(request)


class _Checked:
    """Requests of a stream."""

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = requests

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = await anext(self._requests)
        if isinstance(request, _Malformed):
            raise request.error()
        return request

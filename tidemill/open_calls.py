"""Calls that need no key (health, reflection): bytes that are no message are refused by name, and streams are few.

Nobody may take all calls of a server by waiting.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

from tidemill.errors import Reason, TidemillError
from tidemill.interception import HandlerWrapper, Stream, Unary
from tidemill.malformed import checked, tolerant
from tidemill.status import abort

__all__ = ["MOST_STREAMS", "OpenCalls"]

MOST_STREAMS = 256
_RETRY_SECONDS = 5.0


class OpenCalls(HandlerWrapper):
    """Around each call of a method that is not of our services."""

    def __init__(self) -> None:
        super().__init__()
        self._open = 0

    def takes(self, method: str) -> bool:
        """All that others leave."""
        return not super().takes(method)

    def deserializer(self, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """See `tidemill.malformed`."""
        return tolerant(read)

    def wrap_unary(self, method: str, behavior: Unary, *, streamed: bool) -> Unary:  # noqa: ARG002 - of no matter here
        """Likewise."""

        async def handle(request: Any, context: Any) -> Any:
            try:
                return await behavior(checked(request), context)
            except TidemillError as exc:
                return await abort(context, exc)

        return handle

    def wrap_stream(self, method: str, behavior: Stream, *, streamed: bool) -> Stream:  # noqa: ARG002 - likewise
        """Likewise; OVERLOADED beyond the bound."""

        async def handle(request: Any, context: Any) -> None:
            if self._open >= MOST_STREAMS:
                words = f"{MOST_STREAMS} streams without a key are open, as many as may be; come back later"
                await abort(context, TidemillError(Reason.OVERLOADED, words, retry_after=_RETRY_SECONDS))
            self._open += 1
            try:
                await _answer(behavior, checked(request), context)
            except TidemillError as exc:
                await abort(context, exc)
            finally:
                self._open -= 1

        # Handlers of either style will do for grpc.aio; that of the health service writes its answers.
        return cast("Stream", handle)


async def _answer(behavior: Any, request: Any, context: Any) -> None:
    answers: Awaitable[None] | Any = behavior(request, context)
    if not inspect.isasyncgen(answers):
        await answers
        return
    async for answer in answers:
        await context.write(answer)

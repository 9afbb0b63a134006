"""How long a stream waits for its client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TypeVar, cast

from tidemill.errors import Reason, TidemillError

T = TypeVar("T")


async def timely(messages: AsyncIterator[T], seconds: float) -> AsyncIterator[T]:
    """The messages of a client; DEADLINE_EXCEEDED when none comes for so long."""
    with suppress(StopAsyncIteration):
        while True:
            try:
                async with asyncio.timeout(seconds):
                    message = await anext(messages)
            except TimeoutError:
                raise TidemillError(
                    Reason.DEADLINE_EXCEEDED,
                    f"nothing was sent on this stream for {seconds:g} s; reconnect and go on where you were",
                    metadata={"seconds": f"{seconds:g}"},
                ) from None
            yield message


async def read_in_time(answers: AsyncIterator[T], seconds: float) -> AsyncIterator[T]:
    """Answers on their way to a client; the call is cancelled when it reads none for so long, for no answer of ours
    would reach it."""
    cancel = cast("asyncio.Task[object]", asyncio.current_task()).cancel
    async for answer in answers:
        timer = asyncio.get_running_loop().call_later(seconds, cancel)
        try:
            yield answer
        finally:
            timer.cancel()

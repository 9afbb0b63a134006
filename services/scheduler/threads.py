"""Blocking calls off the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class CallThread:
    """A thread that runs blocking calls, one after another."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a blocking call in the thread; even a cancelled caller waits until it is over."""
        running = asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def shutdown(self) -> None:
        """Take no more calls, and wait for the last one."""
        self._executor.shutdown()

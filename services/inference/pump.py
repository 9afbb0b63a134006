"""Reads a Ray dataset in a thread and hands its slices to the event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from services.inference import slices

__all__ = ["stream_slices"]

_END = object()


async def stream_slices(build: Callable[[], Any], patience: Callable[[], float | None]) -> AsyncGenerator[Any | None]:
    """The result tables of a dataset as they come.

    Args:
        build: makes the dataset; called in the thread, since planning takes a while.
        patience: seconds after which None is yielded when no table came; None waits for ever.

    Raises what Ray raises.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    stop = threading.Event()

    def put(item: Any) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, item)

    def read() -> None:
        # iter_batches is a generator: closing it ends the execution and frees its tasks.
        batches = iter(build().iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        try:
            for block in batches:
                for table in slices.unpack(block):
                    put(table)
                if stop.is_set():
                    break
        finally:
            batches.close()

    reader = asyncio.create_task(asyncio.to_thread(read))
    reader.add_done_callback(lambda _task: queue.put_nowait(_END))
    try:
        async with aclosing(_drained(queue, patience)) as tables:
            async for table in tables:
                yield table
        await reader
    finally:
        stop.set()


async def _drained(queue: asyncio.Queue[Any], patience: Callable[[], float | None]) -> AsyncGenerator[Any | None]:
    while True:
        try:
            item = await asyncio.wait_for(queue.get(), patience())
        except TimeoutError:
            item = None
        if item is _END:
            return
        yield item

"""Reads a Ray dataset in a thread and hands its slices to the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from services.inference import slices

__all__ = ["stream_slices"]


class _EndedError(Exception):
    """The dataset has ended."""


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

    def read_all() -> None:
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

    def read() -> None:
        outcome: BaseException = _EndedError()
        try:
            read_all()
        except Exception as exc:  # noqa: BLE001 - raised again where the slices are awaited
            outcome = exc
        # Nobody listens any more when the loop has closed: the process ends.
        with contextlib.suppress(RuntimeError):
            put(outcome)

    # A thread that does not hold the process up: a dataset may hang as long as its engine does.
    threading.Thread(target=read, name="dataset", daemon=True).start()
    try:
        async with aclosing(_drained(queue, patience)) as tables:
            async for table in tables:
                yield table
    finally:
        stop.set()


async def _drained(queue: asyncio.Queue[Any], patience: Callable[[], float | None]) -> AsyncGenerator[Any | None]:
    while True:
        try:
            item = await asyncio.wait_for(queue.get(), patience())
        except TimeoutError:
            item = None
        if isinstance(item, _EndedError):
            return
        if isinstance(item, BaseException):
            raise item
        yield item

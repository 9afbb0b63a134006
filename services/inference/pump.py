"""Reads a Ray dataset in a thread and hands its slices to the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from services.inference import slices
from services.inference.backlog import Backlog
from services.inference.execution import Execution

__all__ = ["stream_slices"]

_STOP_SECONDS = 10.0


class _EndedError(Exception):
    """The dataset has ended."""


async def stream_slices(
    build: Callable[[], Any], patience: Callable[[], float | None], backlog: Backlog
) -> AsyncGenerator[Any | None]:
    """The result tables of a dataset as they come, read ahead as far as `backlog` has room.

    Args:
        build: makes the dataset; called in the thread, since planning takes a while.
        patience: seconds after which None is yielded when no table came; None waits for ever.

    Raises what Ray raises.
    """
    queue: asyncio.Queue[Any] = asyncio.Queue()
    reader = _Reader(build, asyncio.get_running_loop(), queue, backlog)
    # A thread that does not hold the process up: a dataset may hang as long as its engine does.
    threading.Thread(target=reader.read, name="dataset", daemon=True).start()
    try:
        async with aclosing(_drained(queue, patience, backlog)) as tables:
            async for table in tables:
                yield table
    finally:
        reader.leave()
        if not reader.ended:
            await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(reader.stop))], timeout=_STOP_SECONDS)


class _Reader:
    """Reads the dataset in a thread."""

    def __init__(
        self,
        build: Callable[[], Any],
        loop: asyncio.AbstractEventLoop,
        queue: asyncio.Queue[Any],
        backlog: Backlog,
    ) -> None:
        self._build = build
        self._backlog = backlog
        self._loop = loop
        self._queue = queue
        self._execution: Execution | None = None
        self._stopped = threading.Event()
        self.ended = False

    def read(self) -> None:
        """Put its slices, and then how it ended."""
        outcome: BaseException = _EndedError()
        try:
            self._read()
        except Exception as exc:  # noqa: BLE001 - raised again where the slices are awaited
            outcome = exc
        self.ended = True
        # Nobody listens any more when the loop has closed: the process ends.
        with contextlib.suppress(RuntimeError):
            self._put(outcome)

    def leave(self) -> None:
        """Nobody listens: wait for no room any more. On the event loop."""
        self._stopped.set()
        while not self._queue.empty():
            self._drop(self._queue.get_nowait())

    def stop(self) -> None:
        """End the execution."""
        if self._execution:
            self._execution.stop()

    def _read(self) -> None:
        self._execution = Execution(self._build())
        if self._stopped.is_set():
            return
        for block in self._execution.blocks():
            for table in slices.unpack(block):
                self._backlog.add(table.nbytes, self._stopped.is_set)
                self._put(table)

    def _put(self, item: Any) -> None:
        self._loop.call_soon_threadsafe(self._deliver, item)

    def _deliver(self, item: Any) -> None:
        if self._stopped.is_set():
            self._drop(item)
        else:
            self._queue.put_nowait(item)

    def _drop(self, item: Any) -> None:
        if not isinstance(item, BaseException):
            self._backlog.remove(item.nbytes)


async def _drained(
    queue: asyncio.Queue[Any], patience: Callable[[], float | None], backlog: Backlog
) -> AsyncGenerator[Any | None]:
    while True:
        try:
            item = await asyncio.wait_for(queue.get(), patience())
        except TimeoutError:
            yield None
            continue
        if isinstance(item, _EndedError):
            return
        if isinstance(item, BaseException):
            raise item
        backlog.remove(item.nbytes)
        yield item

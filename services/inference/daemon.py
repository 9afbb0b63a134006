"""Calls that may never return, in threads that hold nobody up."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """What `work` returns or raises, from a thread of its own.

    Unlike the threads of `asyncio.to_thread` these are as many as needed, so a store that hangs takes none from others,
    and the process may end while they hang.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    # Whoever asked may have gone: then nobody looks at the fault.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except Exception as exc:  # noqa: BLE001 - raised again where the result is awaited
            _tell(loop, lambda fault=exc: future.done() or future.set_exception(fault))
        else:
            _tell(loop, lambda: future.done() or future.set_result(result))

    threading.Thread(target=run, name="store", daemon=True).start()
    return future


def _tell(loop: asyncio.AbstractEventLoop, deliver: Callable[[], object]) -> None:
    # The loop has closed when the process ends.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(deliver)

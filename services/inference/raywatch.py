"""Notices that the Ray cluster is gone: its head restarted, or the node of this process died.

Whatever a process had at the old cluster - actors, datasets, objects - does not exist at the new one, and Ray's driver
library cannot change clusters within a process. So the service gives its leases back, ends with `EXIT_STATUS`, and
whoever supervises it starts it again (decision 22).
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from services.inference.nodes import is_known

__all__ = ["EXIT_STATUS", "RayLostError", "answers_in_time", "watch_ray"]

# EX_TEMPFAIL of sysexits.h: try again later.
EXIT_STATUS = 75


class RayLostError(Exception):
    """Ray does not answer any more, or as another cluster."""


async def watch_ray(own_node: str, every_seconds: float, patience_seconds: float) -> None:
    """Return never; RayLostError once this process's node is not alive at the head, or nobody answers in time."""
    while True:
        await asyncio.sleep(every_seconds)
        found = await answers_in_time(lambda: is_known(own_node), patience_seconds)
        if found is not True:
            raise RayLostError("its head does not know this node any more" if found is False else str(found))


async def answers_in_time(call: Callable[[], bool], seconds: float) -> bool | str:
    """What `call` says, or why it says nothing.

    In a thread that holds nothing up: without its head, a call of Ray may never return.
    """
    loop, answer = asyncio.get_running_loop(), asyncio.Event()
    outcome: list[bool | str] = []

    def ask() -> None:
        try:
            outcome.append(call())
        except Exception as exc:  # noqa: BLE001 - whatever Ray raises here, it is gone
            outcome.append(f"{type(exc).__name__}: {exc}")
        # Nobody listens any more when the loop has closed: the process ends.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(answer.set)

    threading.Thread(target=ask, name="ray-watch", daemon=True).start()
    try:
        await asyncio.wait_for(answer.wait(), seconds)
    except TimeoutError:
        return f"its head does not answer within {seconds:g} s"
    return outcome[0]

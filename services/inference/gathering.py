"""Collects the outcomes of tasks as they end, at a cost that does not grow with how many are still running."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from tidemill.waiting import wait_for_event

__all__ = ["Gathering"]

T = TypeVar("T")


class Gathering(Generic[T]):
    """Runs coroutines side by side; those that return None leave nothing."""

    def __init__(self, work: Iterable[Coroutine[Any, Any, T | None]]) -> None:
        self._tasks = {asyncio.ensure_future(item) for item in work}
        self._outcomes: list[T] = []
        self._fault: BaseException | None = None
        self._over = asyncio.Event()
        for task in self._tasks:
            task.add_done_callback(self._note)
        self._look()

    async def batches(self, seconds: float) -> AsyncGenerator[list[T]]:
        """What ended, about every so many seconds and at the end; the first fault is raised behind what had ended.

        Coroutines that still run when the generator is closed are cancelled.
        """
        try:
            while not self._over.is_set() or self._outcomes:
                # An event, not `asyncio.wait`: that one attaches to every task that runs, each time one of them ends.
                await wait_for_event(self._over, seconds)
                batch, self._outcomes = self._outcomes, []
                if batch:
                    yield batch
                if self._fault:
                    raise self._fault
        finally:
            for task in self._tasks:
                task.cancel()

    def _note(self, task: "asyncio.Task[T | None]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            fault = asyncio.CancelledError("a row's task was cancelled")
            self._fault = self._fault or fault
        elif fault := task.exception():
            self._fault = self._fault or fault
        elif (outcome := task.result()) is not None:
            self._outcomes.append(outcome)
        self._look()

    def _look(self) -> None:
        if self._fault or not self._tasks:
            self._over.set()

"""Wake-ups inside the event loop: for workers that wait for work, and for watchers of a job."""

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager


class Signal:
    """Wakes everyone who waits. Take a waiter before looking at the state, and no wake-up is lost."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Event] = set()

    @contextmanager
    def waiter(self) -> Generator[asyncio.Event]:
        """An event that the next `fire` sets; clear it before looking again."""
        event = asyncio.Event()
        self._waiters.add(event)
        try:
            yield event
        finally:
            self._waiters.discard(event)

    def fire(self) -> None:
        """Wake all."""
        for event in self._waiters:
            event.set()


class Changes:
    """One signal per watched job."""

    def __init__(self) -> None:
        self._signals: dict[str, tuple[Signal, int]] = {}

    @contextmanager
    def waiter(self, job: str) -> Generator[asyncio.Event]:
        """An event that the next change of `job` sets."""
        signal, watchers = self._signals.get(job, (Signal(), 0))
        self._signals[job] = (signal, watchers + 1)
        try:
            with signal.waiter() as event:
                yield event
        finally:
            signal, watchers = self._signals[job]
            if watchers == 1:
                del self._signals[job]
            else:
                self._signals[job] = (signal, watchers - 1)

    def watched(self) -> list[str]:
        """Jobs that somebody watches."""
        return list(self._signals)

    def fire(self, jobs: Iterable[str]) -> None:
        """Wake the watchers of these jobs."""
        for job in jobs:
            if job in self._signals:
                self._signals[job][0].fire()

    def fire_all(self) -> None:
        """Wake every watcher."""
        self.fire(self.watched())

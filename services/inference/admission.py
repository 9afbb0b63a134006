"""Which of the rows that are at an engine run next."""

import asyncio
from collections import deque
from dataclasses import dataclass

from services.inference.prefixes import TOKEN_BYTES, Place, in_order

__all__ = ["Admission"]

# Rows given to the engine beyond twice those that run: it must find the next ones at each step.
_SPARE_ROWS = 32


@dataclass(eq=False)
class _Waiter:
    place: Place
    admitted: asyncio.Future[bool]


class Admission:
    """Keeps rows back until the engine has room for them, and lets them in sorted by prefix.

    What the engine has been given it runs first come, first served, so only rows that still wait here can be sorted.
    Rows are taken in sweeps: all that wait when a sweep starts are sorted once, and whoever comes later belongs to the
    next sweep, so nobody waits for more than two. The rows of a call come together and are sorted before the first of
    them goes in. All methods belong to one event loop.

    Args:
        block_tokens: tokens of a block of the engine's prefix cache; 0 lets every row in as it comes.
        most_rows: rows in the engine's batch at most.
        step_tokens: tokens of an engine step at most.
    """

    def __init__(self, block_tokens: int, most_rows: int, step_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._most_rows = most_rows
        self._step_tokens = step_tokens
        self._arrived: list[_Waiter] = []
        self._sweep: deque[_Waiter] = deque()
        self._inside = 0
        self._inside_tokens = 0
        self._running = 0
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """Rows that are kept back."""
        return len(self._arrived) + len(self._sweep)

    async def enter(self, place: Place) -> bool:
        """Wait for the row's turn; False when its group was withdrawn meanwhile. `leave` must follow a True."""
        if not self._block_tokens:
            return True
        waiter = _Waiter(place, asyncio.get_running_loop().create_future())
        self._arrived.append(waiter)
        self._admit_soon()
        try:
            return await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled() and waiter.admitted.result():
                self.leave(place)
            raise

    def leave(self, place: Place) -> None:
        """The row is out of the engine."""
        if self._block_tokens:
            self._inside -= 1
            self._inside_tokens -= _tokens(place)
            self._admit_soon()

    def withdraw(self, group: str) -> None:
        """Let no row of the group in any more."""
        for waiter in (*self._arrived, *self._sweep):
            if waiter.place.group == group and not waiter.admitted.done():
                waiter.admitted.set_result(False)

    def stepped(self, running: int) -> None:
        """The engine made a step, with so many rows in it."""
        self._running = running
        if self.waiting:
            self._admit_soon()

    def _admit_soon(self) -> None:
        # Not at once: the other rows of the same call come in this same turn of the loop.
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._admit)

    def _admit(self) -> None:
        self._scheduled = False
        while self._has_room() and (waiter := self._next()):
            if not waiter.admitted.done():
                self._inside += 1
                self._inside_tokens += _tokens(waiter.place)
                waiter.admitted.set_result(True)

    def _has_room(self) -> bool:
        """Enough for the next steps, and no more: KV memory may hold far fewer rows than the batch."""
        if self._inside >= 2 * self._most_rows:
            return False
        return self._inside < 2 * self._running + _SPARE_ROWS or self._inside_tokens < 2 * self._step_tokens

    def _next(self) -> _Waiter | None:
        if not self._sweep:
            arrived, self._arrived = self._arrived, []
            order = in_order([waiter.place for waiter in arrived], self._block_tokens)
            self._sweep.extend(arrived[index] for index in order)
        return self._sweep.popleft() if self._sweep else None


def _tokens(place: Place) -> int:
    return len(place.tokens) // TOKEN_BYTES

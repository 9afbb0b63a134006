"""Finds what belongs to a chunk of a job by row, also when the chunk was halved meanwhile."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ChunkIndex(Generic[T]):
    """One item for each chunk, by the rows `[start, start + rows)` of the chunk; chunks are named in commit order.

    A chunk in which an engine died is halved, and the parts it had by then keep the name of the whole. They were
    committed before those of its halves, so a half belongs to the item of the whole wherever that has one.

    Args:
        new: makes the item of a chunk from its first row and its number of rows.
    """

    def __init__(self, new: Callable[[int, int], T]) -> None:
        self._new = new
        self._starts: list[int] = []
        self._items: dict[int, tuple[int, T]] = {}

    def of(self, start: int, rows: int) -> T:
        """The item of the chunk, or of the one that it was cut from; made when there is neither."""
        found = self.at(start)
        if found is None:
            found = self._new(start, rows)
            self._starts.insert(bisect_right(self._starts, start), start)
            self._items[start] = start + rows, found
        return found

    def at(self, row: int) -> T | None:
        """The item of the chunk that holds this row."""
        place = bisect_right(self._starts, row)
        if not place:
            return None
        end, item = self._items[self._starts[place - 1]]
        return item if row < end else None

    def drop_below(self, row: int) -> None:
        """Forget the chunks that end at or below a row."""
        ended = [start for start in self._starts if self._items[start][0] <= row]
        del self._starts[: len(ended)]
        for start in ended:
            del self._items[start]

    def __iter__(self) -> Iterator[T]:
        """The items by row."""
        return (self._items[start][1] for start in self._starts)

"""Rows that were accepted and are not durable yet."""

from bisect import bisect_right
from itertools import accumulate

from services.gateway.prepared import Prepared


class RowBuffer:
    """Rows in order, given out in batches of bounded size. It may exceed its bounds by one frame."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._rows = Prepared()
        self._size = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether there is enough for a batch."""
        return len(self._rows) >= self._max_rows or self._size >= self._max_bytes

    def add(self, rows: Prepared) -> None:
        """Take in rows that follow those inside."""
        if not self._rows:
            self._rows = Prepared(rows.start)
        self._rows.extend(rows)
        self._size += rows.size

    def cut(self) -> Prepared:
        """Take the next batch out: up to the bounds, and at least one row."""
        sizes = list(accumulate(map(len, self._rows.requests[: self._max_rows])))
        batch, self._rows = self._rows.split(max(1, bisect_right(sizes, self._max_bytes)))
        self._size -= batch.size
        return batch

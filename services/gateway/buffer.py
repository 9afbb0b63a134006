"""Rows that were accepted and are not durable yet."""

from services.gateway.frames import Prepared, RowDemand
from tidemill.segments import InputRow


class RowBuffer:
    """Rows in order, given out in batches of bounded size. It may exceed its bounds by one frame."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._rows: list[InputRow] = []
        self._ids: list[bytes] = []
        self._demands: list[RowDemand] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether there is enough for a batch."""
        return len(self._rows) >= self._max_rows or self._size >= self._max_bytes

    def add(self, rows: Prepared) -> None:
        """Take rows in at the end."""
        self._rows.extend(rows.rows)
        self._ids.extend(rows.ids)
        self._demands.extend(rows.demands)
        self._size += rows.size

    def cut(self) -> Prepared:
        """Take the next batch out: up to the bounds, and at least one row."""
        count, size = self._measure()
        batch = Prepared(self._rows[:count], self._ids[:count], self._demands[:count], size)
        del self._rows[:count], self._ids[:count], self._demands[:count]
        self._size -= size
        return batch

    def _measure(self) -> tuple[int, int]:
        size = 0
        for count, row in enumerate(self._rows[: self._max_rows]):
            if count and size + len(row.request) > self._max_bytes:
                return count, size
            size += len(row.request)
        return min(len(self._rows), self._max_rows), size

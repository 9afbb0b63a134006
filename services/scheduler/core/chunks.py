"""Cutting a job into chunks, lazily: the size is chosen when a worker asks."""

from collections.abc import Iterator

from services.scheduler.core.limits import Limits

TAIL_SHARE = 20
"""The last 1/20 of a big job is cut finer, so that its end does not wait for one slow chunk (scheduling.md, 2)."""

TAIL_DIVISOR = 4
"""How much finer."""

BIG_JOB_CHUNKS = 8
"""A job of fewer chunks has no tail of its own: finer chunks would cost batching and gain nothing."""

REMAINDER_ROWS = 65_536
"""Most rows of a piece of a job that ends before it was cut."""


DEDICATED_CHUNKS = 4
"""A chunk that loads an engine for itself may have so many times the rows of another: each of its parts carries a bit
for every row, so it must not grow without bound."""


def chunk_budget(limits: Limits, rate: float | None, row_tokens: float) -> int:
    """Rows that take about `chunk_seconds` at `rate` tokens per second; few while the rate is unknown."""
    if rate is None:
        return min(limits.cold_chunk_rows, limits.chunk_rows)
    return max(1, min(limits.chunk_rows, int(limits.chunk_seconds * rate / row_tokens)))


def dedicated_budget(limits: Limits, rate: float | None, row_tokens: float, load_seconds: float) -> int:
    """The same where each lease loads an engine of its own: rows that take `dedicated_loads` times as long as that."""
    shared = chunk_budget(limits, rate, row_tokens)
    if rate is None:
        return shared
    rows = int(limits.dedicated_loads * load_seconds * rate / row_tokens)
    return max(shared, min(DEDICATED_CHUNKS * limits.chunk_rows, rows))


def next_chunk_rows(next_cut: int, row_count: int, chunk_rows: int) -> int:
    """Rows of the chunk that starts at `next_cut` of a job of `row_count` rows; at least 1."""
    left = row_count - next_cut
    if row_count < BIG_JOB_CHUNKS * chunk_rows:
        return min(chunk_rows, left)
    tail_start = row_count - row_count // TAIL_SHARE
    if next_cut < tail_start:
        return min(chunk_rows, tail_start - next_cut)
    return min(max(1, chunk_rows // TAIL_DIVISOR), left)


def remainder_pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """(start, rows) of the pieces into which the uncut rows of an ending job fall."""
    for piece in range(start, end, REMAINDER_ROWS):
        yield piece, min(REMAINDER_ROWS, end - piece)

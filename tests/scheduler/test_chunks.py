"""Cutting: the pieces tile the job, respect the size and get finer at a big job's end."""

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core.chunks import REMAINDER_ROWS, next_chunk_rows, remainder_pieces


def cut_all(row_count: int, chunk_rows: int) -> list[int]:
    sizes: list[int] = []
    cut = 0
    while cut < row_count:
        sizes.append(next_chunk_rows(cut, row_count, chunk_rows))
        cut += sizes[-1]
    return sizes


@given(st.integers(1, 5_000), st.integers(1, 1000))
def test_chunks_tile_the_job(row_count: int, chunk_rows: int):
    sizes = cut_all(row_count, min(chunk_rows, row_count))
    assert sum(sizes) == row_count
    assert all(1 <= size <= chunk_rows for size in sizes)


def test_a_small_job_is_cut_evenly():
    assert cut_all(64, 2048) == [64]
    assert cut_all(25, 10) == [10, 10, 5]


def test_the_last_twentieth_of_a_big_job_is_finer():
    assert cut_all(1000, 100) == [100] * 9 + [50, 25, 25]


def test_chunks_of_one_row_stay_of_one_row():
    assert cut_all(40, 1) == [1] * 40


@given(st.integers(0, 300_000), st.integers(0, 300_000))
def test_remainders_tile_what_was_never_cut(start: int, rows: int):
    pieces = list(remainder_pieces(start, start + rows))
    assert sum(size for _, size in pieces) == rows
    assert all(1 <= size <= REMAINDER_ROWS for _, size in pieces)
    ends = [start, *(piece + size for piece, size in pieces)]
    assert [piece for piece, _ in pieces] == ends[:-1]

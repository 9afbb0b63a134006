"""Sets of rows inside a chunk: bit i stands for row `chunk_start + i`.

Python integers inside a process, little-endian bytes outside.
"""

from collections.abc import Iterable, Iterator


def from_bytes(bitmap: bytes) -> int:
    """The set that a `row_bitmap` stands for."""
    return int.from_bytes(bitmap, "little")


def to_bytes(rows: int, size: int) -> bytes:
    """The `row_bitmap` of a set within a chunk of `size` rows."""
    return rows.to_bytes((size + 7) // 8, "little")


def full(size: int) -> int:
    """All rows of a chunk of `size` rows."""
    return (1 << size) - 1


def of_indices(indices: Iterable[int]) -> int:
    """The set of these offsets within the chunk."""
    rows = 0
    for index in indices:
        rows |= 1 << index
    return rows


def indices(rows: int) -> Iterator[int]:
    """Offsets within the chunk, rising."""
    text = bin(rows)[:1:-1]
    position = text.find("1")
    while position >= 0:
        yield position
        position = text.find("1", position + 1)


def fits(rows: int, size: int) -> bool:
    """Whether the set names only rows of a chunk of `size` rows."""
    return rows.bit_length() <= size

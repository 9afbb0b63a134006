"""The rows that `benchmarks.append` sends: 500 bytes of custom id and prompt each, the same on every side."""

import random
from collections.abc import Iterator
from functools import cache

from tidemill.v1 import row_pb2

ROW_BYTES = 500
_ID_BYTES = len("row-000000000")
_POOL_BYTES = 4 << 20
# Odd, so that rows start anywhere in the pool and neighbours share no text.
_STRIDE = 65_537
_SYLLABLES = ("ta", "ri", "no", "me", "lu", "ka", "so", "vi", "pe", "do")


def make_rows(count: int) -> Iterator[row_pb2.Row]:
    """`count` prompts without sampling, made as they are asked for; the same ones each time.

    The first call takes a second and some memory for the text that all are cut from.
    """
    return _rows(_pool(), count)


def _rows(text: str, count: int) -> Iterator[row_pb2.Row]:
    size = ROW_BYTES - _ID_BYTES
    room = len(text) - size
    for index in range(count):
        start = index * _STRIDE % room
        yield row_pb2.Row(custom_id=f"row-{index:09d}", prompt=text[start : start + size])


@cache
def _pool() -> str:
    """Words of made-up syllables: text that compresses about as text does."""
    source = random.Random(7)  # noqa: S311 - test data
    words = ["".join(source.choices(_SYLLABLES, k=source.randint(1, 4))) for _ in range(20_000)]
    return " ".join(source.choices(words, k=_POOL_BYTES // 5))[:_POOL_BYTES]

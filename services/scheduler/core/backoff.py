"""How long failed work waits before its next try."""

from services.scheduler.core.times import SECOND

MAX_BACKOFF_SECONDS = 60

_MIX = 2_654_435_761
"""Knuth's multiplicative hash: fences that follow each other give jitters that do not."""


def backoff_ns(failures: int, fence: int) -> int:
    """Doubles with each of `failures` (at least 1), a second to a minute; jitter from the fence takes up to half."""
    longest = min(MAX_BACKOFF_SECONDS, 2 ** (min(failures, 10) - 1)) * SECOND
    share = fence * _MIX % 2**32 / 2**32
    return int(longest * (1 - share / 2))

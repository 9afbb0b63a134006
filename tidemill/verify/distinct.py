"""How many of many digests occur more than once, in bounded memory."""

from array import array
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

MOST_KEPT = 1 << 21
"""Different digests kept, 16 bytes each; beyond that, half of all possible digests are looked at no more, and so on."""

_np = cast("Any", np)


@dataclass(frozen=True)
class Repeats:
    """`extra` items repeat an earlier one, the commonest stands `largest` times (0 when none repeats); both count only
    the `share` of all possible digests that was looked at."""

    extra: int
    largest: int
    share: float


class DistinctSample:
    """Counts repeats among digests. Which are dropped is a matter of the digest alone, so repeats go or stay together
    (Gibbons, Distinct Sampling, VLDB 2001)."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._mask = 0
        self._new = array("Q")
        self._values: Any = _np.empty(0, _np.uint64)
        self._counts: Any = _np.empty(0, _np.int64)

    def add(self, digest: bytes) -> None:
        """Note a digest of at least 8 bytes."""
        value = int.from_bytes(digest[:8], "little")
        if value & self._mask:
            return
        self._new.append(value)
        if len(self._new) >= self._most:
            self._merge()

    def repeats(self) -> Repeats:
        """What was found so far."""
        self._merge()
        largest = int(self._counts.max(initial=0))
        extra = int(self._counts.sum()) - len(self._counts)
        return Repeats(extra, largest if largest > 1 else 0, 1 / (self._mask + 1))

    def _merge(self) -> None:
        values = _np.concatenate([self._values, _np.frombuffer(self._new, dtype=_np.uint64)])
        counts = _np.concatenate([self._counts, _np.ones(len(self._new), _np.int64)])
        self._values, places = _np.unique(values, return_inverse=True)
        self._counts = _np.bincount(places, weights=counts, minlength=len(self._values)).astype(_np.int64)
        self._new = array("Q")
        while len(self._values) > self._most:
            self._mask = self._mask << 1 | 1
            stay = (self._values & _np.uint64(self._mask)) == 0
            self._values, self._counts = self._values[stay], self._counts[stay]

"""Merkle trees that grow at the right edge, in logarithmic memory.

The tree is that of RFC 6962 (section 2.1): leaves are hashed behind a 0x00 byte and inner nodes behind 0x01, and a tree
of n leaves splits at the largest power of two below n. A *frontier* keeps the roots of its complete subtrees only.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
_LEAF, _INNER = b"\x00", b"\x01"
_sha256 = hashlib.sha256
EMPTY_ROOT = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class Frontier:
    """Roots of the complete subtrees over `count` leaves, largest (leftmost) first: one for each set bit of `count`."""

    count: int = 0
    peaks: tuple[bytes, ...] = ()

    @classmethod
    def restore(cls, count: int, peaks: Sequence[bytes]) -> "Frontier":
        """A frontier from its stored parts; ValueError when they do not fit each other."""
        if len(peaks) != count.bit_count() or any(len(peak) != HASH_BYTES for peak in peaks):
            raise ValueError(f"a frontier over {count} leaves has {count.bit_count()} peaks of {HASH_BYTES} bytes")
        return cls(count, tuple(peaks))

    def extend(self, leaves: Iterable[bytes]) -> "Frontier":
        """The frontier after `leaves` were added at the right."""
        peaks = list(self.peaks)
        level = [_sha256(_LEAF + leaf).digest() for leaf in leaves]
        count, size = self.count + len(level), self.count
        # Level by level: a peak of this size is the left neighbour of the first new node, a last node without a
        # right neighbour is a peak itself. `small` collects those, smallest first.
        small: list[bytes] = []
        while level:
            if size & 1:
                level.insert(0, peaks.pop())
            if len(level) & 1:
                small.append(level.pop())
            level = [_sha256(_INNER + left + right).digest() for left, right in _pairs(level)]
            size >>= 1
        return Frontier(count, (*peaks, *reversed(small)))

    def root(self) -> bytes:
        """Root over all leaves; the hash of nothing for an empty tree."""
        if not self.peaks:
            return EMPTY_ROOT
        *rest, node = self.peaks
        for peak in reversed(rest):
            node = _sha256(_INNER + peak + node).digest()
        return node


def _pairs(nodes: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    pair = iter(nodes)
    return zip(pair, pair, strict=True)

"""Merkle trees that grow at the right edge, in logarithmic memory.

The tree is that of RFC 6962 (section 2.1): leaves are hashed behind a 0x00 byte and inner nodes behind 0x01, and a tree
of n leaves splits at the largest power of two below n. A *frontier* keeps the roots of its complete subtrees only.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def hash_leaf(leaf: bytes) -> bytes:
    """Hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


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
        count, peaks = self.count, list(self.peaks)
        for leaf in leaves:
            peaks.append(hash_leaf(leaf))
            count += 1
            for _ in range((count & -count).bit_length() - 1):
                right = peaks.pop()
                peaks[-1] = hash_children(peaks[-1], right)
        return Frontier(count, tuple(peaks))

    def root(self) -> bytes:
        """Root over all leaves; the hash of nothing for an empty tree."""
        if not self.peaks:
            return EMPTY_ROOT
        *rest, node = self.peaks
        for peak in reversed(rest):
            node = hash_children(peak, node)
        return node

"""Which custom ids a job has already: sorted sidecars beside its segments, and a Bloom filter in front of them."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tidemill.internal.v1 import records_pb2
from tidemill.store import ObjectStore

HASH_BYTES = 16
_FIRST_CAPACITY = 1 << 16
# 20 bits and 10 probes a key: one false hit in some 11,000 lookups, each costing a search of the sidecars.
_BITS_PER_KEY = 20
_PROBES = 10


def sidecar_key(segment_key: str) -> str:
    """Object-store key of a segment's custom-id hashes."""
    return segment_key.removesuffix(".parquet") + ".ids"


def sidecar_bytes(hashes: Iterable[bytes]) -> bytes:
    """Content of a sidecar: the hashes, sorted."""
    return b"".join(sorted(hashes))


def sidecar_has(sidecar: bytes, wanted: bytes) -> bool:
    """Whether a sidecar holds a hash, by binary search."""
    positions = range(len(sidecar) // HASH_BYTES)
    position = bisect_left(positions, wanted, key=lambda i: sidecar[i * HASH_BYTES : (i + 1) * HASH_BYTES])
    return sidecar[position * HASH_BYTES : (position + 1) * HASH_BYTES] == wanted


class BloomFilter:
    """A set of 16-byte hashes that may claim too much and never too little."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self._mask = np.uint64((1 << (capacity * _BITS_PER_KEY - 1).bit_length()) - 1)
        self._bits = np.zeros((int(self._mask) + 1) // 8, dtype=np.uint8)

    def add(self, hashes: bytes) -> None:
        """Add hashes, concatenated."""
        bits = self._positions(hashes)
        np.bitwise_or.at(self._bits, bits >> np.uint64(3), _bit_in_byte(bits))
        self.count += len(hashes) // HASH_BYTES

    def hits(self, hashes: bytes) -> Any:
        """For each of the concatenated hashes, whether it may be in the set (array of booleans)."""
        bits = self._positions(hashes)
        return (self._bits[bits >> np.uint64(3)] & _bit_in_byte(bits)).astype(bool).all(axis=1)

    def _positions(self, hashes: bytes) -> Any:
        # Double hashing (Kirsch and Mitzenmacher 2006): the halves of a SHA-256 prefix are independent.
        halves = np.frombuffer(hashes, dtype="<u8").reshape(-1, 2)
        steps = np.arange(_PROBES, dtype=np.uint64)
        with np.errstate(over="ignore"):
            return (halves[:, :1] + steps * (halves[:, 1:] | np.uint64(1))) & self._mask


def _bit_in_byte(bits: Any) -> Any:
    return np.left_shift(np.uint8(1), (bits & np.uint64(7)).astype(np.uint8))


class CustomIdIndex:
    """The custom ids of a job's stored rows. Blocking: call off the loop.

    Holds at most 5 bytes a row; filters double in size, so a job of any length keeps the same rate of false hits.
    """

    def __init__(self, store: ObjectStore, segments: Iterable[records_pb2.SegmentRef]) -> None:
        self._store = store
        self._segments = list(segments)
        self._unread = list(self._segments)
        self._filters: list[BloomFilter] = []

    def add_segment(self, segment: records_pb2.SegmentRef, hashes: bytes) -> None:
        """Take in a segment that was just stored, with its ids (concatenated)."""
        self._read_sidecars()
        self._segments.append(segment)
        self._add(hashes)

    def stored(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Those of `hashes` that stored rows have."""
        self._read_sidecars()
        if not hashes:
            return set()
        joined = b"".join(hashes)
        hits = np.zeros(len(hashes), dtype=bool)
        for item in self._filters:
            hits |= item.hits(joined)
        return self._confirm({hashes[position] for position in np.flatnonzero(hits)})

    def _confirm(self, suspects: set[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        for segment in self._segments if suspects else ():
            sidecar = self._store.get(sidecar_key(segment.key))
            found |= {item for item in suspects - found if sidecar_has(sidecar, item)}
        return found

    def _read_sidecars(self) -> None:
        while self._unread:
            self._add(self._store.get(sidecar_key(self._unread[0].key)))
            self._unread.pop(0)

    def _add(self, hashes: bytes) -> None:
        while hashes:
            if not self._filters or self._filters[-1].count >= self._filters[-1].capacity:
                self._filters.append(BloomFilter(_FIRST_CAPACITY << len(self._filters)))
            last = self._filters[-1]
            room = (last.capacity - last.count) * HASH_BYTES
            last.add(hashes[:room])
            hashes = hashes[room:]

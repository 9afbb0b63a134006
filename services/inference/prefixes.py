"""The order of rows at an engine: those that share a prefix follow each other, so that its cache holds it for all."""

import itertools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["TOKEN_BYTES", "Place", "in_order", "token_bytes"]

TOKEN_BYTES = array("i").itemsize


@dataclass(frozen=True)
class Place:
    """What a row's turn depends on.

    Attributes:
        group: what it came with: the rows of one lease.
        tokens: its prompt, see `token_bytes`.
        length: most tokens of prompt and answer together.
    """

    group: str
    tokens: bytes
    length: int


def token_bytes(tokens: Sequence[int]) -> bytes:
    """Token ids at a fixed width: equal prefixes of tokens are equal prefixes of bytes, and compare quickly."""
    return array("i", tokens).tobytes()


def in_order(places: Sequence[Place], block_tokens: int) -> list[int]:
    """Positions of `places`, given as they came, in the order in which they should run.

    Sorted by the prefix that a row shares with a neighbour, in whole blocks of the engine's cache; what nobody shares
    counts for nothing. At an equal prefix groups go first come, first served, so that chunks end one after the other
    and the engine never waits for several new ones at once; within a group the longest row goes first, so that the
    last one does not run alone for long.
    """
    come = dict[str, int]()
    ranks = [come.setdefault(place.group, len(come)) for place in places]
    block = block_tokens * TOKEN_BYTES
    ranked = sorted(range(len(places)), key=lambda index: places[index].tokens)
    common = [_shared_blocks(places[a].tokens, places[b].tokens, block) for a, b in itertools.pairwise(ranked)]
    depths = [max(pair) for pair in zip([0, *common], [*common, 0], strict=True)] if ranked else []
    keyed = [
        (places[index].tokens[: depth * block], ranks[index], -places[index].length, index)
        for index, depth in zip(ranked, depths, strict=True)
    ]
    return [index for *_, index in sorted(keyed)]


def _shared_blocks(left: bytes, right: bytes, block: int) -> int:
    """Whole blocks at the start that both have, found by halving."""
    low, high = 0, min(len(left), len(right)) // block
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[: middle * block] == right[: middle * block] else (low, middle - 1)
    return low

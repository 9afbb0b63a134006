"""The frontier against the recursive definition of RFC 6962, section 2.1."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.merkle import EMPTY_ROOT, Frontier

leaves = st.lists(st.binary(max_size=40), max_size=70)


def rfc6962_root(items: list[bytes]) -> bytes:
    if not items:
        return hashlib.sha256(b"").digest()
    if len(items) == 1:
        return hashlib.sha256(b"\x00" + items[0]).digest()
    split = 1
    while split * 2 < len(items):
        split *= 2
    return hashlib.sha256(b"\x01" + rfc6962_root(items[:split]) + rfc6962_root(items[split:])).digest()


@given(leaves)
def test_root_is_that_of_rfc_6962(items: list[bytes]) -> None:
    assert Frontier().extend(items).root() == rfc6962_root(items)


@given(leaves, st.integers(min_value=0, max_value=70))
def test_root_does_not_depend_on_how_leaves_were_cut(items: list[bytes], cut: int) -> None:
    first = Frontier().extend(items[:cut])
    assert Frontier.restore(first.count, first.peaks).extend(items[cut:]).root() == rfc6962_root(items)


def test_empty_tree_hashes_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 peaks"):
        Frontier.restore(3, [b"x" * 32])
    with pytest.raises(ValueError, match="32 bytes"):
        Frontier.restore(1, [b"x"])

"""Row sets against Python's own sets."""

from hypothesis import given
from hypothesis import strategies as st

from tidemill import rowset

subsets = st.sets(st.integers(min_value=0, max_value=299))


@given(subsets)
def test_bytes_and_indices_round_trip(members: set[int]) -> None:
    rows = rowset.from_bytes(rowset.to_bytes(rowset.of_indices(members), 300))
    assert list(rowset.indices(rows)) == sorted(members)
    assert rows.bit_count() == len(members)


@given(st.integers(min_value=0, max_value=300))
def test_full_holds_every_row_and_fits(size: int) -> None:
    assert list(rowset.indices(rowset.full(size))) == list(range(size))
    assert rowset.fits(rowset.full(size), size)
    assert not rowset.fits(rowset.full(size + 1), size)


def test_bitmap_is_lowest_bit_first() -> None:
    assert rowset.to_bytes(rowset.of_indices([0, 9]), 10) == b"\x01\x02"

"""Chunks found by row, also after they were halved."""

from hypothesis import given
from hypothesis import strategies as st

from tidemill.chunk_index import ChunkIndex


@st.composite
def halvings(draw: st.DrawFn) -> tuple[list[range], list[range]]:
    """Chunks of a job as first cut, and all chunks that have parts, in an order in which those can be committed."""
    cuts = sorted(draw(st.sets(st.integers(1, 60), max_size=4)))
    first = [range(start, end) for start, end in zip([0, *cuts], [*cuts, 61], strict=True)]
    named: list[range] = []
    for chunk in draw(st.permutations(first)):
        pending = [chunk]
        while pending:
            item = pending.pop()
            halved = len(item) > 1 and draw(st.booleans())
            if not halved or draw(st.booleans()):
                named.append(item)
            if halved:
                middle = draw(st.integers(item.start + 1, item.stop - 1))
                pending += [range(item.start, middle), range(middle, item.stop)]
    return first, named


@given(halvings())
def test_items_hold_all_rows_of_what_was_named_and_lie_beside_each_other(
    chunks: tuple[list[range], list[range]],
) -> None:
    first, named = chunks
    index = ChunkIndex(lambda start, rows: (range(start, start + rows), list[range]()))
    for chunk in named:
        index.of(chunk.start, len(chunk))[1].append(chunk)
    rows = [row for span, _ in index for row in span]
    assert rows == list(range(61)), "no row twice, none left out"
    assert [chunk for span, inside in index for chunk in inside if not set(chunk) <= set(span)] == []
    assert sorted((c.start, c.stop) for _, inside in index for c in inside) == sorted((c.start, c.stop) for c in named)
    assert all((item := index.at(row)) and row in item[0] for row in rows)
    assert index.at(61) is None
    assert index.at(-1) is None
    assert len(list(index)) >= len(first)


@given(halvings(), st.integers(0, 61))
def test_what_lies_below_a_row_is_forgotten_and_nothing_else(chunks: tuple[list[range], list[range]], row: int) -> None:
    index = ChunkIndex(lambda start, rows: range(start, start + rows))
    for chunk in chunks[1]:
        index.of(chunk.start, len(chunk))
    kept = [span for span in index if span.stop > row]
    index.drop_below(row)
    assert list(index) == kept
    assert all((index.at(each) is None) == (not any(each in span for span in kept)) for each in range(61))

"""The order of rows at an engine."""

from hypothesis import given
from hypothesis import strategies as st

from services.inference.prefixes import Place, in_order, token_bytes

BLOCK = 4


def place(*tokens: int, group: str = "a", length: int = 0) -> Place:
    return Place(group, token_bytes(tokens), length or len(tokens))


def shared_blocks(left: list[int], right: list[int]) -> int:
    same = 0
    while same < min(len(left), len(right)) and left[same] == right[same]:
        same += 1
    return same // BLOCK


token_lists = st.lists(st.lists(st.integers(0, 2), max_size=14), max_size=12)


@given(token_lists)
def test_every_row_has_its_turn(lists: list[list[int]]) -> None:
    order = in_order([place(*tokens) for tokens in lists], BLOCK)
    assert sorted(order) == list(range(len(lists)))


@given(token_lists)
def test_rows_that_share_a_block_are_not_parted_by_others(lists: list[list[int]]) -> None:
    ordered = [lists[index] for index in in_order([place(*tokens) for tokens in lists], BLOCK)]
    for first in range(len(ordered)):
        for last in range(first + 1, len(ordered)):
            depth = shared_blocks(ordered[first], ordered[last])
            if depth:
                assert all(shared_blocks(ordered[first], row) >= depth for row in ordered[first:last])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=12))
def test_without_a_shared_block_groups_go_as_they_came_and_their_longest_rows_first(
    rows: list[tuple[str, int]],
) -> None:
    places = [
        place(*range(number * 100, number * 100 + 20), group=key, length=n) for number, (key, n) in enumerate(rows)
    ]
    come = list(dict.fromkeys(key for key, _ in rows))
    expected = sorted(range(len(rows)), key=lambda index: (come.index(rows[index][0]), -rows[index][1], index))
    assert in_order(places, BLOCK) == expected


def test_a_tail_that_nobody_shares_does_not_mix_the_groups() -> None:
    system = (7,) * BLOCK
    places = [place(*system, *[tail] * BLOCK, group=group) for tail, group in ((9, "a"), (3, "b"), (5, "a"), (1, "b"))]
    assert [places[index].group for index in in_order(places, BLOCK)] == ["a", "a", "b", "b"]

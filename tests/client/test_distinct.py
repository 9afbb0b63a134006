from hypothesis import given
from hypothesis import strategies as st

from tidemill.client.distinct import DistinctIds


def brute_force(ids: list[str]) -> tuple[int, int] | None:
    seen: dict[str, int] = {}
    for line, custom_id in enumerate(ids, start=1):
        if custom_id in seen:
            return seen[custom_id], line
        seen[custom_id] = line
    return None


@given(st.lists(st.integers(0, 40).map(str), max_size=60), st.integers(1, 20))
def test_the_first_repeat_is_found_however_the_runs_are_cut(ids: list[str], run_ids: int) -> None:
    with DistinctIds(run_ids) as distinct:
        for line, custom_id in enumerate(ids, start=1):
            distinct.add(custom_id, line)
        found = distinct.first_duplicate()
    expected = brute_force(ids)
    assert (found is None) == (expected is None)
    if found and expected:
        assert found[1] == expected[1]
        assert ids[found[0] - 1] == ids[found[1] - 1]

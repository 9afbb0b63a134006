"""The sensor's cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_defs.lib.cursor import CursorError, FeedCursor


@given(st.builds(FeedCursor, st.integers(0, 2**63), st.integers(0, 2**63), st.text()))
def test_json_round_trip(cursor: FeedCursor) -> None:
    assert FeedCursor.from_json(cursor.to_json()) == cursor


@pytest.mark.parametrize("text", [None, ""])
def test_no_cursor_is_the_start(text: str | None) -> None:
    assert FeedCursor.from_json(text) == FeedCursor(0, 0, "")


@pytest.mark.parametrize(
    "text", ["17", "[]", "{", "null", '{"sequence": 1}', '{"sequence": "x", "storage_id": 0, "ledger_uid": ""}']
)
def test_foreign_cursor_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(CursorError, match="empty it in the sensor's page"):
        FeedCursor.from_json(text)


def test_first_ledger_is_adopted_and_another_refused() -> None:
    FeedCursor().check_ledger("one")
    FeedCursor(5, 5, "one").check_ledger("one")
    for other in ("two", ""):
        with pytest.raises(CursorError, match="belongs to ledger one"):
            FeedCursor(5, 5, "one").check_ledger(other)

from datetime import timedelta

import pytest

from tidemill.client.durations import format_duration, parse_duration
from tidemill.errors import TidemillError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), (" 0.5H ", 1800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-1h", "2w", "1e3s", "tomorrow", "9" * 40 + "d", "9" * 30 + "d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(TidemillError, match=r"duration|longer than"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2s"), (59, "59s"), (200, "3m20s"), (7500, "2h05m"), (273_600, "3d4h")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text

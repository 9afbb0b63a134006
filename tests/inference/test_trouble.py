"""What lasts is told, and not in every line of the log."""

from typing import Any

from services.inference.trouble import Trouble


def test_trouble_is_told_at_once_each_minute_and_at_its_end() -> None:
    told, now = list[tuple[str, dict[str, Any]]](), [0.0]
    trouble = Trouble(lambda event, **fields: told.append((event, fields)), "scheduler away", lambda: now[0])
    trouble.over()
    for tries in range(1, 301):
        trouble.failed(error=tries)
        now[0] += 0.5
    trouble.over()
    trouble.failed(error="again")
    assert told == [
        ("scheduler away", {"tries": 1, "error": 1}),
        ("scheduler away", {"tries": 121, "error": 121}),
        ("scheduler away", {"tries": 241, "error": 241}),
        ("scheduler away: over", {"tries": 300}),
        ("scheduler away", {"tries": 1, "error": "again"}),
    ]

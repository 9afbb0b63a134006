"""Durations as people write them: `90s`, `30m`, `2h`, `1d`."""

import re
from datetime import timedelta

from tidemill.errors import Reason, TidemillError

_SECONDS_OF = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> timedelta:
    """The duration that `text` names; parts add up, as in `1h30m`. Raises INVALID_ARGUMENT."""
    compact = text.strip().lower()
    if not _WHOLE.fullmatch(compact) or len(compact) > 32:
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"{text[:32]!r} is not a duration: write a number and a unit, such as 90s, 30m, 2h or 1d",
            metadata={"value": text[:32]},
        )
    seconds = sum(float(number) * _SECONDS_OF[unit] for number, unit in _PART.findall(compact))
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise TidemillError(Reason.INVALID_ARGUMENT, f"{text!r} is longer than any job may take") from None


def format_duration(seconds: float) -> str:
    """`seconds` for people: `4.2s`, `3m20s`, `2h05m`, `3d4h`."""
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"

"""How large a regular expression becomes once its counted repetitions are written out, as grammar engines do."""

import re

__all__ = ["pattern_cost"]

_COUNTED = re.compile(r"\{(\d{0,9})(?:,(\d{0,9}))?\}")


def pattern_cost(pattern: str) -> int:
    """Number of atoms (characters, classes) with `x{m,n}` counted n times, m times without n; nesting multiplies.

    An estimate from above for any dialect: what it takes for an atom or a group is one in all of them.
    """
    # The costs of the groups that are open, and of the atom or group that was read last.
    sums, last, place = [0], 0, 0
    while place < len(pattern):
        sign = pattern[place]
        place += 1
        if sign == "(":
            sums.append(0)
            last = 0
        elif sign == ")":
            last = sums.pop() if len(sums) > 1 else 0
            sums[-1] += last
        elif sign == "{" and (count := _COUNTED.match(pattern, place - 1)):
            sums[-1] += last * (_times(count) - 1)
            last *= _times(count)
            place = count.end()
        elif sign not in "*+?|^$":
            place = _atom_end(pattern, place, sign)
            last = 1
            sums[-1] += 1
    return sum(sums)


def _times(count: re.Match[str]) -> int:
    low, high = count.groups()
    return max(1, int(low or 0), int(high or 0))


def _atom_end(pattern: str, place: int, sign: str) -> int:
    if sign == "\\":
        return place + 1
    if sign != "[":
        return place
    # A bracket closes a class unless it is escaped.
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1

"""Find emoji in tracked files: code, logs and documents here have none."""

import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.tracked import ROOT, text_of, tracked_files

# Unicode's emoji blocks; arrows, box drawing and mathematical signs are text.
RANGES = ((0x1F000, 0x1FAFF), (0x2600, 0x27BF), (0x2B05, 0x2B07), (0x2B1B, 0x2B1C), (0x2B50, 0x2B55), (0xFE0F, 0xFE0F))


def is_emoji(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in RANGES)


def emoji_in(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and code point of each."""
    for number, line in enumerate((text_of(path) or "").splitlines(), start=1):
        yield from ((number, f"U+{ord(character):04X}") for character in line if is_emoji(character))


def main(root: Path = ROOT) -> int:
    found = [(path, number, point) for path in tracked_files(root) for number, point in emoji_in(path)]
    for path, number, point in found:
        print(f"{path.relative_to(root)}:{number}: emoji {point}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())

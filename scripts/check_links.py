"""Check links of tracked Markdown: relative targets and anchors must exist, external ones must be well formed."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.tracked import ROOT, tracked_files

FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
DEFINITION = re.compile(r"^\[[^\]]+\]:\s+<?(\S+?)>?\s*$", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
SCHEMES = {"http", "https", "mailto"}


def blanked(pattern: re.Pattern[str], text: str) -> str:
    """`text` without what matches, its lines kept in number."""
    return pattern.sub(lambda match: "\n" * match.group().count("\n"), text)


def links_of(text: str) -> Iterator[tuple[int, str]]:
    """Line number and target of each link outside code."""
    prose = blanked(CODE, blanked(FENCE, text))
    for pattern in (LINK, DEFINITION):
        for match in pattern.finditer(prose):
            yield prose.count("\n", 0, match.start(1)) + 1, match.group(1)


def anchors_of(text: str) -> set[str]:
    """The names that GitHub gives headings, and those set in HTML."""
    anchors: set[str] = set()
    for heading in HEADING.findall(blanked(FENCE, text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        anchors.add(next(name for name in numbered(slug) if name not in anchors))
    return anchors | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def numbered(slug: str) -> Iterator[str]:
    yield slug
    yield from (f"{slug}-{number}" for number in range(1, 1000))


def complaint(path: Path, target: str) -> str | None:
    """What is wrong with a link from `path`, or None."""
    parts = urlsplit(target)
    if parts.scheme:
        whole = parts.scheme in SCHEMES and (parts.netloc or parts.scheme == "mailto")
        return None if whole else "not a well-formed address"
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not file.exists():
        return "no such file"
    if parts.fragment and file.suffix == ".md" and parts.fragment not in anchors_of(file.read_text()):
        return "no such heading"
    return None


def main(root: Path = ROOT) -> int:
    dead = [
        f"{path.relative_to(root)}:{number}: {target}: {why}"
        for path in tracked_files(root)
        if path.suffix == ".md"
        for number, target in links_of(path.read_text())
        if (why := complaint(path, target))
    ]
    print("\n".join(dead), file=sys.stderr, end="\n" if dead else "")
    return 1 if dead else 0


if __name__ == "__main__":
    raise SystemExit(main())

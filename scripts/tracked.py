"""The files that `make check` judges: those that git tracks, and new ones that it does not ignore."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def git(*arguments: str, root: Path = ROOT) -> str:
    """Standard output of a git command; CalledProcessError when it fails."""
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def tracked_files(root: Path = ROOT) -> list[Path]:
    """Absolute paths, sorted; files deleted but not yet committed are left out."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", root=root)
    paths = {root / name for name in listed.split("\0") if name}
    return sorted(path for path in paths if path.is_file())


def text_of(path: Path) -> str | None:
    """The file's text, or None when it is binary."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None

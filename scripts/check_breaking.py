"""Run `buf breaking` on `protos/` against what is on main, or on main itself against the state before the last change.

A commit whose message has a line `Breaking-Protos: <reason>` is the new base: before the first release a contract may
change, but never by accident.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.gen_protos import copy_google_protos
from scripts.tracked import ROOT, git

PATHS = ("protos", "buf.yaml")
TRAILER = "Breaking-Protos:"


def commit_of(name: str, root: Path) -> str:
    """The commit that `name` is at, or nothing."""
    try:
        return git("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}", root=root).strip()
    except subprocess.CalledProcessError:
        return ""


def merge_base(root: Path) -> str:
    """Where this branch left main; nothing without a main or with a clone too shallow to tell."""
    main = commit_of("origin/main", root) or commit_of("main", root)
    try:
        return git("merge-base", "HEAD", main, root=root).strip() if main else ""
    except subprocess.CalledProcessError:
        return ""


def changes(revisions: str, root: Path) -> list[str]:
    """Commits that touch the protos, newest first."""
    return git("log", "--format=%H", revisions, "--", *PATHS, root=root).split()


def base_of(root: Path) -> str:
    """The commit to compare with, or nothing when there is none."""
    head, base = commit_of("HEAD", root), merge_base(root)
    if not head:
        return ""
    if base in ("", head):
        last = changes("HEAD", root)[:1]
        base = commit_of(f"{last[0]}^", root) if last else ""
    return newest_declared(base, root) or base


def newest_declared(base: str, root: Path) -> str:
    """The newest commit after `base` that declares a breaking change."""
    later = changes(f"{base}..HEAD" if base else "HEAD", root)
    declared = (commit for commit in later if f"\n{TRAILER}" in git("log", "-1", "--format=%B", commit, root=root))
    return next(declared, "")


def extract(commit: str, target: Path, root: Path) -> None:
    command = ["git", "-C", str(root), "archive", commit, *PATHS]
    archive = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive, check=True)  # noqa: S603, S607
    copy_google_protos(target / "build" / "protodeps")


def buf() -> str:
    """The buf of this environment."""
    return shutil.which("buf", path=str(Path(sys.executable).parent)) or "buf"


def breaking(commit: str, root: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        extract(commit, Path(folder), root)
        copy_google_protos(root / "build" / "protodeps")
        return subprocess.run([buf(), "breaking", "--against", folder], cwd=root, check=False).returncode  # noqa: S603


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="repository to judge")
    root: Path = parser.parse_args(argv).root
    base = base_of(root)
    if not base or not git("ls-tree", base, "--", *PATHS, root=root):
        print("buf breaking: no earlier protos to compare with")
        return 0
    return breaking(base, root)


if __name__ == "__main__":
    raise SystemExit(main())

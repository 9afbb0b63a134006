"""A small git repository to plant offences in."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Commit = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty repository on branch main."""
    run_git(tmp_path, "init", "--quiet", "--initial-branch=main")
    run_git(tmp_path, "config", "user.email", "test@example.com")
    run_git(tmp_path, "config", "user.name", "Test")
    run_git(tmp_path, "config", "commit.gpgsign", "false")
    return tmp_path


@pytest.fixture
def commit(repository: Path) -> Commit:
    """`commit("message", {"file": "text"})` writes the files, commits them, and returns the commit."""

    def make(message: str, files: dict[str, str]) -> str:
        for name, text in files.items():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            (repository / name).write_text(text)
        run_git(repository, "add", "--all")
        run_git(repository, "commit", "--quiet", "--allow-empty", "--message", message)
        return run_git(repository, "rev-parse", "HEAD").strip()

    return make


def run_git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, text=True).stdout

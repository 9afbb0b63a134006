"""`make check` compares the protos with main, and on main with the state before the last change of theirs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import check_breaking
from scripts.tracked import ROOT
from tests.repo.conftest import Commit, run_git

PROTO = """syntax = "proto3";
package tide.v1;
// M.
message M {
  // A.
  string a = 1;
  // B.
  int64 b = 2;
}
"""
BROKEN = PROTO.replace("int64 b", "string b")
WIDER = PROTO.replace("}\n", "  // C.\n  bool c = 3;\n}\n")
NAME = "protos/tide/v1/m.proto"


@pytest.fixture
def base(commit: Commit) -> str:
    return commit("Add protos", {"buf.yaml": (ROOT / "buf.yaml").read_text(), NAME: PROTO, ".gitignore": "build/\n"})


def check(repository: Path) -> int:
    return check_breaking.main(["--root", str(repository)])


@pytest.mark.usefixtures("base")
def test_the_first_commit_and_a_tree_without_protos_have_nothing_to_compare_with(repository: Path) -> None:
    assert check(repository) == 0
    shutil.rmtree(repository / ".git")
    run_git(repository, "init", "--quiet")
    assert check(repository) == 0


@pytest.mark.usefixtures("base")
def test_a_branch_is_compared_with_where_it_left_main(repository: Path, commit: Commit) -> None:
    run_git(repository, "checkout", "--quiet", "-b", "work")
    commit("Widen", {NAME: WIDER})
    assert check(repository) == 0
    commit("Break", {NAME: BROKEN})
    commit("Something else", {"other": ""})
    assert check(repository) != 0


@pytest.mark.usefixtures("base")
def test_on_main_the_last_change_can_fail_until_it_is_declared(repository: Path, commit: Commit) -> None:
    commit("Break", {NAME: BROKEN})
    commit("Something else", {"other": ""})
    assert check(repository) != 0
    run_git(repository, "reset", "--quiet", "--hard", "HEAD~2")
    commit("Break\n\nBreaking-Protos: b never was a number", {NAME: BROKEN})
    assert check(repository) == 0
    (repository / NAME).write_text(PROTO)
    assert check(repository) != 0


@pytest.mark.usefixtures("base")
def test_a_change_that_is_not_committed_yet_is_judged(repository: Path, commit: Commit) -> None:
    commit("Widen", {NAME: WIDER})
    (repository / NAME).write_text(BROKEN)
    assert check(repository) != 0


@pytest.mark.usefixtures("base")
def test_a_shallow_clone_is_no_error(
    repository: Path, commit: Commit, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commit("Break", {NAME: BROKEN})
    clone = tmp_path_factory.mktemp("clone") / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{repository}", clone], check=True)
    assert check(clone) == 0


def test_lint_refuses_what_has_no_comment(repository: Path, commit: Commit) -> None:
    commit("Add protos", {"buf.yaml": (ROOT / "buf.yaml").read_text(), NAME: PROTO.replace("  // B.\n", "")})
    check_breaking.copy_google_protos(repository / "build" / "protodeps")
    linted = subprocess.run([check_breaking.buf(), "lint"], cwd=repository, capture_output=True, text=True, check=False)
    assert linted.returncode != 0
    assert "m.proto:7" in linted.stdout

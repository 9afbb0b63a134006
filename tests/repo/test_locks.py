"""A lock that no longer is what its inputs say is found, offline."""

import shutil
from pathlib import Path

import pytest

from scripts import install_env, lock
from scripts.tracked import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of requirements/ to damage."""
    return Path(shutil.copytree(ROOT / "requirements", tmp_path / "requirements"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_committed_locks_agree_with_their_inputs(folder: Path) -> None:
    assert lock.drift(folder) == []


def test_comments_are_free(folder: Path) -> None:
    edit(folder / "client.in", "# the transport", "# what carries the calls")
    assert lock.drift(folder) == []


def test_a_new_requirement_is_drift_in_every_lock_that_has_it(folder: Path) -> None:
    with (folder / "client.in").open("a") as file:
        file.write("zstandard>=0.23  # smaller frames\n")
    problems = lock.drift(folder)
    for name in ("cpu", "gpu", "server", "dagster", "client"):
        assert f"{name}.lock: its inputs changed since it was compiled; run `make lock`" in problems
        assert f"{name}.lock: zstandard>=0.23 of client.in is not met by None" in problems


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("ray==2.60.0", "ray==2.59.0", "ray[data]==2.60.0 of cpu.in is not met by 2.59.0"),
        ("ray==2.60.0", "ray>=2.60.0", "ray is not pinned"),
    ],
)
def test_an_edited_pin_is_drift(folder: Path, old: str, new: str, problem: str) -> None:
    edit(folder / "cpu.lock", old, new)
    assert f"cpu.lock: {problem}" in lock.drift(folder)


def test_a_missing_lock_is_drift(folder: Path) -> None:
    (folder / "gpu.lock").unlink()
    assert lock.drift(folder) == ["gpu.lock: missing; run `make lock`"]


def test_every_pin_but_torch_has_hashes_and_no_lock_has_torch_s_companions() -> None:
    for name in lock.LOCKS:
        text = (ROOT / "requirements" / f"{name}.lock").read_text()
        pins = [line for line in text.splitlines() if line[:1].isalnum()]
        assert pins
        assert all(line.endswith("\\") for line in pins)
        if name != "gpu":
            assert not {"torchvision", "torchaudio", "torchcodec"} & set(lock.pinned(lock.FOLDER / f"{name}.lock"))


def test_the_platform_is_dropped_from_markers_and_nothing_else() -> None:
    platform = "implementation_name == 'cpython' and platform_machine == 'x86_64' and sys_platform == 'linux'"
    assert lock.shortened(f"a==1 ; {platform} \\") == "a==1 \\"
    assert lock.shortened(f"a==1 ; python_full_version < '3.12' and {platform} \\") == (
        "a==1 ; python_full_version < '3.12' \\"
    )
    assert lock.shortened("    --hash=sha256:00") == "    --hash=sha256:00"


def test_an_environment_is_built_once_for_the_same_lock(tmp_path: Path) -> None:
    steps: list[str] = []

    def step() -> bool:
        steps.append("taken")
        return True

    for wanted in ("one", "one", "two"):
        install_env.once(tmp_path / ".locked", wanted, "a lock", step)
    assert len(steps) == 2
    with pytest.raises(SystemExit, match="a lock: not installed"):
        install_env.once(tmp_path / ".locked", "three", "a lock", lambda: False)
    assert (tmp_path / ".locked").read_text() == "two"


def test_an_environment_s_digest_ignores_comments_only(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text("# one\na==1\n")
    first = install_env.digest([path])
    path.write_text("# two\na==1\n")
    assert install_env.digest([path]) == first
    path.write_text("# two\na==2\n")
    assert install_env.digest([path]) != first

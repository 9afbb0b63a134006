"""No process outlives its owner."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.inference import orphans

# An owner that marks itself, starts a child in a session of its own and prints the child's pid.
OWNER = """
import subprocess, sys, time
from pathlib import Path
from services.inference import orphans
home = Path(sys.argv[1])
owner = orphans.claim(home)
guard = orphans.Guard(owner, home / "session") if sys.argv[2] == "guarded" else None
sleep = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleep, start_new_session=True, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait(10)
        if process.stdout:
            process.stdout.close()
    orphans.reap(tmp_path)


def own(home: Path, started: list[subprocess.Popen[str]], guarded: bool) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", OWNER, str(home), "guarded" if guarded else "plain"]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    started.append(owner)
    assert owner.stdout
    return owner, int(owner.stdout.readline())


def gone(pid: int, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_children_of_a_living_owner_are_left_alone(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    _, child = own(tmp_path, started, guarded=False)
    assert [item.pid for item in orphans.marked(tmp_path)] == [child]
    assert orphans.orphans_of(tmp_path) == []
    assert orphans.reap(tmp_path) == 0
    assert orphans.marked(tmp_path / "elsewhere") == []


def test_the_next_start_reaps_what_a_killed_owner_left(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    owner, child = own(tmp_path, started, guarded=False)
    owner.kill()
    owner.wait()
    assert [item.pid for item in orphans.orphans_of(tmp_path)] == [child]
    assert orphans.reap(tmp_path) == 1
    assert gone(child)
    assert orphans.reap(tmp_path) == 0


def test_the_guard_reaps_at_once(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    (tmp_path / "session").mkdir()
    owner, child = own(tmp_path, started, guarded=True)
    owner.kill()
    owner.wait()
    assert gone(child)
    deadline = time.monotonic() + 20
    while (tmp_path / "session").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_left_the_family_is_an_orphan(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    _, child = own(tmp_path, started, guarded=False)
    item = orphans.marked(tmp_path)[0]
    assert item.pid == child
    assert item.owner.alive
    assert not orphans.Owner(item.owner.home, item.owner.pid, item.owner.started + 1).alive


def test_folders_of_dead_owners_are_swept(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    owner, _ = own(tmp_path, started, guarded=False)
    living = orphans.marked(tmp_path)[0].owner
    for name, text in {
        "ray-living": living.encode(),
        "ray-dead": f"{living.home}:{living.pid}:{living.started + 1}",
        "ray-other": "",
        "other": f"{living.home}:{living.pid}:0",
    }.items():
        (tmp_path / name).mkdir()
        if text:
            (tmp_path / name / "owner").write_text(text)
    orphans.sweep(tmp_path, "ray-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "ray-living", "ray-other"]
    owner.kill()


def test_a_guard_with_work_left_does_not_hold_its_owner_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_GUARD_SECONDS", 0.01)
    guard = orphans.Guard(orphans.Owner("home", os.getpid(), 0), tmp_path / "none")
    process = guard._process  # pyright: ignore[reportPrivateUsage]
    process.send_signal(signal.SIGSTOP)
    guard.close()
    assert process.poll() is None
    process.send_signal(signal.SIGCONT)
    assert process.wait(20) == 0

"""The supervisor over real processes that fork, refuse to die and die too early: nothing is ever left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

DRIVER = Path(__file__).with_name("driver_supervisor.py")

_BEGIN = """
import os, pathlib, signal, subprocess, sys, time
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
def note(suffix, text=""):
    (folder / f".{name}.{suffix}").write_text(text); (folder / f".{name}.{suffix}").rename(folder / f"{name}.{suffix}")
def ready():
    note("pid", str(os.getpid())); note("ready")
"""
PLAIN = _BEGIN + "ready(); signal.pause()"
# A grandchild in a session of its own whose parent has ended, as Ray's daemons are, and a child that ignores SIGTERM.
BREEDER = (
    _BEGIN
    + """
deaf = "import signal, time\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\nwhile True: time.sleep(60)"
orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True)"
subprocess.run([sys.executable, "-c", orphan], check=True)
subprocess.Popen([sys.executable, "-c", deaf])
ready(); signal.pause()
"""
)
DEAF = _BEGIN + "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready()\nwhile True: signal.pause()"
FAILS = _BEGIN + "print('the reason why'); sys.exit(7)"
ORDERLY = (
    _BEGIN
    + """
def end(*_):
    with (folder / "order").open("a") as file: file.write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end); ready(); signal.pause()
"""
)
# Fails at its first start only.
SECOND_TIME = (
    _BEGIN
    + """
tried = folder / "tried"
if not tried.exists():
    tried.touch(); sys.exit(1)
ready(); signal.pause()
"""
)

T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 60) -> T:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)
    return value


class Driven:
    """A supervising process and what it says."""

    def __init__(self, folder: Path, *items: dict[str, str]) -> None:
        (folder / "set.json").write_text(json.dumps(items))
        self.folder = folder
        self.output = folder / "output"
        self.marker = f"TIDEMILL_TEST_MARKER={folder}"
        env = {**os.environ, "TIDEMILL_TEST_MARKER": str(folder)}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(DRIVER), str(folder)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
                cwd=DRIVER.parents[2],
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_text(self, text: str, count: int = 1) -> None:
        def seen() -> bool:
            assert self.process.poll() is None or self.text().count(text) >= count, self.text()
            return self.text().count(text) >= count

        wait_for(seen)

    def pid_of(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def alive(self) -> list[str]:
        """Command lines of all processes that were started below the driver, the driver included."""
        found: list[str] = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.marker.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
            except OSError:
                continue
        return found

    def wait_gone(self) -> None:
        wait_for(lambda: not self.alive())


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driven]]:
    driven: list[Driven] = []

    def start(*items: dict[str, str]) -> Driven:
        driven.append(Driven(tmp_path, *items))
        return driven[-1]

    yield start
    for item in driven:
        item.process.kill()
        item.process.wait()
        item.wait_gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_in_order_and_leaves_nothing(drive: Callable[..., Driven], number: int) -> None:
    driven = drive(
        *({"name": name, "code": ORDERLY} for name in ("one", "two", "three")), {"name": "b", "code": BREEDER}
    )
    driven.wait_text("all ready")
    assert len(driven.alive()) >= 1 + 4 * 2 + 2
    driven.process.send_signal(number)
    assert driven.process.wait(timeout=60) == 0, driven.text()
    assert (driven.folder / "order").read_text().split() == ["one", "two", "three"]
    assert driven.alive() == []
    assert driven.text().splitlines()[-1] == "all stopped"


def test_killing_the_supervisor_leaves_nothing(drive: Callable[..., Driven]) -> None:
    driven = drive({"name": "b", "code": BREEDER}, {"name": "d", "code": DEAF})
    driven.wait_text("all ready")
    driven.process.kill()
    driven.process.wait()
    driven.wait_gone()


def test_a_service_that_ignores_sigterm_is_killed_after_its_grace(drive: Callable[..., Driven]) -> None:
    driven = drive({"name": "d", "code": DEAF, "grace": "0.3"})
    driven.wait_text("all ready")
    driven.process.terminate()
    assert driven.process.wait(timeout=60) == 0
    assert "stopped d was killed by SIGKILL" in driven.text()
    assert driven.alive() == []


def test_a_second_signal_hurries(drive: Callable[..., Driven]) -> None:
    driven = drive({"name": "d", "code": DEAF, "grace": "600"})
    driven.wait_text("all ready")
    driven.process.send_signal(signal.SIGINT)
    driven.wait_text("stopping d")
    driven.process.send_signal(signal.SIGINT)
    assert driven.process.wait(timeout=60) == 0
    assert driven.alive() == []


def test_a_killed_service_takes_its_tree_along_and_is_started_again(drive: Callable[..., Driven]) -> None:
    driven = drive({"name": "b", "code": BREEDER}, {"name": "p", "code": PLAIN})
    driven.wait_text("all ready")
    before, count = driven.pid_of("b"), len(driven.alive())
    os.kill(before, signal.SIGKILL)
    driven.wait_text("exited b was killed by SIGKILL")
    driven.wait_text("ready b", count=2)
    assert driven.pid_of("b") != before
    wait_for(lambda: len(driven.alive()) == count)


def test_what_a_killed_shim_leaves_is_killed(drive: Callable[..., Driven]) -> None:
    driven = drive({"name": "b", "code": BREEDER})
    driven.wait_text("all ready")
    count = len(driven.alive())
    shim = int(Path(f"/proc/{driven.pid_of('b')}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGKILL)
    driven.wait_text("ready b", count=2)
    wait_for(lambda: len(driven.alive()) == count)


def test_a_service_that_dies_at_its_start_is_tried_again(drive: Callable[..., Driven]) -> None:
    driven = drive({"name": "s", "code": SECOND_TIME})
    driven.wait_text("all ready")
    assert "exited s ended with status 1; starting again in 0.05 s" in driven.text()


def test_a_service_that_never_starts_is_reported_with_its_log(drive: Callable[..., Driven]) -> None:
    driven = drive({"name": "f", "code": FAILS}, {"name": "b", "code": BREEDER})
    assert driven.process.wait(timeout=60) == 3
    assert "failed f ended with status 7 at its start" in driven.text()
    assert "the reason why" in driven.text()
    assert driven.alive() == []


def test_the_test_s_own_view_of_processes_works(drive: Callable[..., Driven]) -> None:
    driven = drive({"name": "p", "code": PLAIN})
    driven.wait_text("all ready")
    assert any("driver_supervisor" in line for line in driven.alive())
    assert any("tidemill.up.shim" in line for line in driven.alive())

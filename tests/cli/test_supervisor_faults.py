"""A fault of the supervisor's own, and waiting on it from other threads; run in a process of its own."""

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import os, sys, threading
from pathlib import Path
from tidemill.errors import TidemillError
from tidemill.up import tree
from tidemill.up.spec import ProcessSpec, Timing
from tidemill.up.supervisor import Supervisor

folder, kind = Path(sys.argv[1]), sys.argv[2]
calls = 0

def check():
    global calls
    calls += 1
    if kind == "fault":
        raise RuntimeError("the check itself is broken")
    return "the tide" if kind in ("late", "stopped") else None

spec = ProcessSpec("p", ("sleep", "600"), dict(os.environ), folder / "p.log", check, 0, grace=5)
supervisor = Supervisor([spec], lambda event: None, Timing(tick=0.01))
supervisor.start()
if kind == "stopped":
    threading.Timer(0.3, supervisor.stop).start()
try:
    supervisor.wait_ready(1 if kind == "late" else 20)
except TidemillError as exc:
    print(exc.reason, exc.message)
supervisor.stop()
print("children", tree.children(os.getpid()))
"""


def outcome(folder: Path, kind: str) -> list[str]:
    finished = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(folder), kind], capture_output=True, text=True, timeout=60, check=True
    )
    return finished.stdout.splitlines()


def test_a_fault_of_the_supervisor_stops_everything(tmp_path: Path) -> None:
    message, children = outcome(tmp_path, "fault")
    assert message.startswith("INTERNAL the supervisor itself failed")
    assert children == "children []"


def test_a_process_that_is_never_ready_is_named(tmp_path: Path) -> None:
    message, children = outcome(tmp_path, "late")
    assert message == f"UNAVAILABLE not ready after 1 s: p: the tide, log {tmp_path / 'p.log'}"
    assert children == "children []"


def test_a_stop_while_starting(tmp_path: Path) -> None:
    assert outcome(tmp_path, "stopped") == ["CANCELLED stopped while starting", "children []"]


def test_stopping_at_once(tmp_path: Path) -> None:
    assert outcome(tmp_path, "fine") == ["children []"]

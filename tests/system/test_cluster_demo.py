"""`make cluster-demo`'s program: every row is answered once although the leader dies, and nothing is left."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.processes import ROOT, Stack, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

LAST_LINE = re.compile(r"cluster demo ok: rows=200 succeeded=200 takeover_seconds=(\d+\.\d) seconds=\d+\.\d")


def test_the_job_outlives_the_leader_and_nothing_is_left(tmp_path: Path) -> None:
    home, output = tmp_path / "home", tmp_path / "output"
    stray = {"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "token"}
    stack = Stack.__new__(Stack)
    stack.home = home
    listeners: set[str] = set()
    with output.open("wb") as sink:
        demo = subprocess.Popen(
            [sys.executable, "-m", "scripts.cluster_demo", "--home", str(home)],
            cwd=ROOT,
            env={**os.environ, **stray},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )

    def ended() -> bool:
        listeners.update(stack.reachable_listeners())
        return demo.poll() is not None

    try:
        wait_for(ended, 800, "end of the demo")
    finally:
        # Its supervisor takes everything along.
        demo.kill()
        demo.wait()
    lines = output.read_text().splitlines()
    assert demo.returncode == 0, "\n".join(lines[-40:])
    assert LAST_LINE.fullmatch(lines[-1]), lines[-1]
    assert sum(bool(re.match(r"killed scheduler-[12], which led", line)) for line in lines) == 1
    assert not listeners
    wait_for(lambda: not stack.descendants(), 20, "end of the demo's processes")
    # The takeover is in the ledger's own account: a second term began.
    logs = "".join((home / "logs" / f"scheduler-{number}.log").read_text() for number in (1, 2))
    assert '"epoch": 2' in logs

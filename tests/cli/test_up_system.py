"""`tidemill up` with its real processes: a job, a killed worker, Ctrl-C and kill -9; nothing is ever left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.system.processes import ROOT, Stack, wait_for
from tidemill.cli.main import app

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

START_SECONDS = 300


class Up:
    """A running `tidemill up`."""

    def __init__(self, home: Path) -> None:
        self.home, self.output = home, home.parent / "output"
        stray = {"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "token"}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tidemill.cli.main", "up", "--any-port", "--no-dagster", "--home", str(home)],
                cwd=ROOT,
                env={**os.environ, **stray},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_text(self, text: str, count: int = 1) -> None:
        def seen() -> bool:
            assert self.process.poll() is None, self.text()
            return self.text().count(text) >= count

        wait_for(seen, START_SECONDS, text)

    def left(self) -> dict[int, str]:
        """What still runs below it, by process id."""
        return self._stack().descendants()

    def reachable_listeners(self) -> set[str]:
        """Ports that its processes offer to other machines."""
        return self._stack().reachable_listeners()

    def _stack(self) -> Stack:
        stack = Stack.__new__(Stack)
        stack.home = self.home
        return stack


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started = Up(tmp_path / "home")
    yield started
    started.process.kill()
    started.process.wait()
    wait_for(lambda: not started.left(), 30, "end of all processes")


@pytest.fixture
def run(up: Up, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.delenv("TIDEMILL_ADDRESS", raising=False)
    monkeypatch.delenv("TIDEMILL_API_KEY", raising=False)
    monkeypatch.setenv("TIDEMILL_HOME", str(up.home))
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_a_day_of_the_embedded_set(up: Up, run: Callable[..., Result], tmp_path: Path) -> None:
    up.wait_text("Ctrl-C stops everything")
    assert "ignoring RAY_ADDRESS, RAY_AUTH_MODE from the environment" in up.text()
    note = json.loads((up.home / "up.json").read_text())
    assert (up.home / "up.json").stat().st_mode & 0o777 == 0o600

    answered = run("submit", str(ROOT / "examples" / "plain.jsonl"), "-m", "tiny", "-s", "max_tokens=8")
    assert answered.exit_code == 0, answered.stderr
    assert all(json.loads(line)["response"] for line in answered.stdout.splitlines())

    findings = {item["name"]: item["level"] for item in json.loads(run("doctor", "--json").stdout)["findings"]}
    assert {findings[name] for name in ("scheduler", "gateway", "inference", "models")} == {"ok"}
    figures = json.loads(run("metrics", "--json").stdout)
    assert set(figures) == {"scheduler", "gateway", "inference"}
    assert all(len(families) > 5 for families in figures.values())

    assert up.reachable_listeners() == set()

    second = run("up")
    assert second.exit_code == 3
    assert f"process {up.process.pid} runs `tidemill up` on" in second.stderr

    os.kill(note["processes"]["inference"]["pid"], signal.SIGKILL)
    up.wait_text("inference          exited was killed by SIGKILL")
    again = run("submit", str(ROOT / "examples" / "plain.jsonl"), "-m", "tiny", "-s", "max_tokens=8")
    assert again.exit_code == 0, again.stderr
    assert up.text().count("inference          ready") >= 2

    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=120) == 0, up.text()
    assert up.left() == {}
    assert not (up.home / "up.json").exists()
    stopped = [line.split()[0] for line in up.text().splitlines() if " stopped " in line]
    assert stopped == ["gateway", "inference", "scheduler"]


def test_killing_it_leaves_nothing(up: Up) -> None:
    def ray_runs() -> bool:
        return any("raylet" in command for command in up.left().values())

    wait_for(ray_runs, START_SECONDS, "Ray's own processes")
    up.process.kill()
    up.process.wait()
    wait_for(lambda: not up.left(), 30, "end of all processes")

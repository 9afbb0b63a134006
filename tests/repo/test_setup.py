"""What a fresh machine meets first: finding a Python, the preflight, the make targets."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.tracked import ROOT

SH = "/bin/sh"


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_usable_python_is_found() -> None:
    found = run(SH, "scripts/find_python.sh", PYTHON=sys.executable)
    assert found.returncode == 0
    assert Path(found.stdout.strip()).exists()


def test_without_a_usable_python_the_remedy_is_printed(tmp_path: Path) -> None:
    for name, version in (("python3", "(3, 10)"), ("python3.14", "(3, 14)")):
        (tmp_path / name).write_text(f"#!/bin/sh\n# a Python {version}\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    found = run(SH, "scripts/find_python.sh", PATH=str(tmp_path), HOME=str(tmp_path))
    assert found.returncode == 1
    assert found.stdout == ""
    assert "sudo apt install python3 python3-venv" in found.stderr or "cat" in found.stderr


def test_the_preflight_takes_under_a_second_and_prints_the_needs_first() -> None:
    started = time.monotonic()
    finished = run(sys.executable, "-S", "scripts/preflight.py", "--installed")
    assert time.monotonic() - started < 1 + 1  # the interpreter's own start counts, on a busy machine
    first, *others = finished.stdout.splitlines()
    assert re.fullmatch(r"needs about \d+ GiB of downloads \(once\), \d+ GiB of disk and \d+ GiB of memory", first)
    assert others


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has the driver")
def test_a_gpu_run_stops_before_it_downloads_when_there_is_no_driver() -> None:
    stopped = run("make", "--no-print-directory", "venv", "ENGINE=gpu")
    assert stopped.returncode != 0
    assert "FAIL gpu: no NVIDIA driver" in stopped.stdout
    assert "Installing" not in stopped.stdout
    assert not (ROOT / ".venv-gpu").exists()


def test_help_lists_every_target_that_people_use() -> None:
    listed = run("make", "--no-print-directory").stdout
    targets = set(re.findall(r"^  make (\S+)", listed, re.MULTILINE))
    assert {"venv", "proto", "demo", "test", "check", "soak", "fmt", "clean", "help"} <= targets


def test_ci_runs_check_and_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("make --no-print-directory check test")


def test_the_tests_that_make_runs_are_all_of_them() -> None:
    lines = re.findall(r"^(?:LIGHT|HEAVY) := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    folders = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/__init__.py")}
    assert sorted(" ".join(lines).split()) == sorted(folders)

"""Every benchmark can be started by its file, from any folder, and says what it does."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pinned import ROOT

PROGRAMS = sorted(
    path.name for path in (ROOT / "benchmarks").glob("*.py") if "ArgumentParser(description=" in path.read_text()
)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_benchmark_starts_by_its_file(program: str, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / program, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(f"usage: {program}")


def test_there_are_benchmarks() -> None:
    assert {"throughput.py", "matrix.py", "warm_start.py", "first_result.py", "prefix_order.py"} <= set(PROGRAMS)

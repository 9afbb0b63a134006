"""The coverage plugin fails a passing run when a package's branches fall below its floor, and only then."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import coverage_floor
from scripts.tracked import ROOT

CODE = "def f(x):\n    if x:\n        return 1\n    return 2\n"
HALF = "from tidemill.m import f\n\ndef test_f():\n    assert f(True) == 1\n"
WHOLE = HALF + "    assert f(False) == 2\n"

ENVIRONMENT = f"""
import os
import pytest

def test_first():
    assert "{coverage_floor.PROCESS_CONFIG}" in os.environ

@pytest.mark.system
def test_second():
    assert "{coverage_floor.PROCESS_CONFIG}" not in os.environ

def test_third():
    assert "{coverage_floor.PROCESS_CONFIG}" in os.environ
"""
OTHER = f"""
import os

def test_elsewhere():
    assert "{coverage_floor.PROCESS_CONFIG}" not in os.environ
"""
QUIET = ("-o", "asyncio_default_fixture_loop_scope=function")
pytest_plugins = ["pytester"]


def summary(branches: int, covered: int) -> dict[str, dict[str, int]]:
    lines = {"num_statements": 10, "covered_lines": 10}
    return {"summary": {"num_branches": branches, "covered_branches": covered, **lines}}


def test_lines_and_branches_are_summed_over_a_folder() -> None:
    report = {"files": {"tidemill/a.py": summary(8, 8), "tidemill/b.py": summary(2, 0), "other/c.py": summary(9, 0)}}
    both, branches = coverage_floor.branch_coverage(report, "tidemill/")
    assert both == pytest.approx(100 * 28 / 30)
    assert branches == 80.0
    assert coverage_floor.branch_coverage(report, "nowhere/") == (100.0, 100.0)


@pytest.mark.parametrize(("test", "code"), [(HALF, 1), (WHOLE, 0)])
def test_a_run_below_the_floor_fails(tmp_path: Path, test: str, code: int) -> None:
    (tmp_path / "tidemill").mkdir()
    (tmp_path / "build").mkdir()
    (tmp_path / "tidemill" / "__init__.py").touch()
    (tmp_path / "tidemill" / "m.py").write_text(CODE)
    (tmp_path / "test_m.py").write_text(test)
    arguments = [
        "--cov=tidemill",
        "--cov-branch",
        "--cov-report=json:build/coverage.json",
        "-p",
        "scripts.coverage_floor",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    environment.pop("COV_CORE_DATAFILE", None)
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == code, finished.stdout
    figure = json.loads((tmp_path / "build" / "coverage.json").read_text())
    assert f"{coverage_floor.branch_coverage(figure, 'tidemill/')[0]:6.1f} %" in finished.stdout
    assert finished.stdout.strip().splitlines()[-1].strip("= ").startswith("1 passed")


def test_processes_of_system_tests_are_not_measured(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(coverage_floor.PROCESS_CONFIG, "seen")
    pytester.makepyfile(**{"tests/cli/test_env": ENVIRONMENT, "tests/other/test_env2": OTHER})
    result = pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-p", "scripts.coverage_floor", "-o", "markers=system", *QUIET
    )
    result.assert_outcomes(passed=4)

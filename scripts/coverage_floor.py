"""A pytest plugin: the run fails when a package's branches are covered less than its floor.

It reads the report of `--cov-branch --cov-report=json:build/coverage.json`; `make test` says how it is called.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

REPORT = Path("build/coverage.json")
# With this variable in its environment a Python process measures itself.
PROCESS_CONFIG = "COVERAGE_PROCESS_CONFIG"
UNMEASURED = ("engine", "system")
# Times nothing, and is the only test of `tidemill demo`.
MEASURED = ("test_demo.py",)
FLOORS = {"tidemill/": 90.0, "services/scheduler/core/": 90.0}


_withheld: dict[str, str] = {}


def branch_coverage(report: dict[str, Any], folder: str) -> float:
    """Per cent of the branches below `folder` that were taken; 100 where there are none."""
    summaries = [file["summary"] for name, file in report["files"].items() if name.startswith(folder)]
    branches = sum(summary["num_branches"] for summary in summaries)
    return 100.0 * sum(summary["covered_branches"] for summary in summaries) / branches if branches else 100.0


def reached() -> dict[str, float]:
    """Branch coverage of each folder that has a floor; nothing when the run ended before it was measured."""
    report = json.loads(REPORT.read_text()) if REPORT.exists() else None
    return {folder: branch_coverage(report, folder) for folder in FLOORS} if report else {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave the processes of engine and system tests alone: tracing would slow down what they time."""
    if item.path.name in MEASURED or not any(item.get_closest_marker(name) for name in UNMEASURED):
        os.environ.update(_withheld)
        _withheld.clear()
    elif PROCESS_CONFIG in os.environ:
        _withheld[PROCESS_CONFIG] = os.environ.pop(PROCESS_CONFIG)


def pytest_sessionstart() -> None:
    """An earlier run's report must not speak for this one."""
    REPORT.unlink(missing_ok=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run whose tests passed; pytest-cov has written its report when the last test ended."""
    if any(percent < FLOORS[folder] for folder, percent in reached().items()):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each folder's figure under pytest-cov's table."""
    terminalreporter.section("branch coverage")
    for folder, percent in reached().items():
        below = percent < FLOORS[folder]
        line = f"{folder:<28}{percent:6.1f} %  at least {FLOORS[folder]:.0f} %{'  ERROR: below' if below else ''}"
        terminalreporter.line(line, red=below)

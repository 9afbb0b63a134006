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
# Where the command and its supervisor are tested as processes. Elsewhere tracing would slow down what is timed, and
# a gateway that ends while it is traced can die in gRPC's threads (SIGSEGV after "stopped").
MEASURED = ("tests/tidemill/", "tests/cli/")
UNMEASURED = ("engine", "system")
FLOORS = {"tidemill/": 90.0, "services/scheduler/core/": 90.0}


_withheld: dict[str, str] = {}


def branch_coverage(report: dict[str, Any], folder: str) -> tuple[float, float]:
    """Per cent below `folder`: of lines and branches together, as coverage.py counts, and of branches alone."""
    summaries = [file["summary"] for name, file in report["files"].items() if name.startswith(folder)]
    lines = ratio(summaries, "covered_lines", "num_statements")
    branches = ratio(summaries, "covered_branches", "num_branches")
    return percent(lines[0] + branches[0], lines[1] + branches[1]), percent(*branches)


def ratio(summaries: list[dict[str, int]], covered: str, total: str) -> tuple[int, int]:
    return sum(summary[covered] for summary in summaries), sum(summary[total] for summary in summaries)


def percent(covered: int, total: int) -> float:
    return 100.0 * covered / total if total else 100.0


def reached() -> dict[str, tuple[float, float]]:
    """Branch coverage of each folder that has a floor; nothing when the run ended before it was measured."""
    report = json.loads(REPORT.read_text()) if REPORT.exists() else None
    return {folder: branch_coverage(report, folder) for folder in FLOORS} if report else {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the processes of some tests measure themselves, and leave those of the others alone."""
    slow = any(item.get_closest_marker(name) for name in UNMEASURED)
    if item.nodeid.startswith(MEASURED) and not slow:
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
    if any(both < FLOORS[folder] for folder, (both, _) in reached().items()):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each folder's figure under pytest-cov's table."""
    terminalreporter.section("branch coverage")
    for folder, (both, branches) in reached().items():
        below = both < FLOORS[folder]
        line = f"{folder:<28}{both:6.1f} %  at least {FLOORS[folder]:.0f} %; branches alone {branches:.1f} %"
        terminalreporter.line(f"{line}{'  ERROR: below' if below else ''}", red=below)

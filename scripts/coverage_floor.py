"""A pytest plugin: the run fails when a package's branches are covered less than its floor.

pytest --cov --cov-branch --cov-report=json:build/coverage.json -p scripts.coverage_floor
"""

import json
from pathlib import Path
from typing import Any

import pytest

REPORT = Path("build/coverage.json")
FLOORS = {"tidemill/": 90.0, "services/scheduler/core/": 90.0}


def branch_coverage(report: dict[str, Any], folder: str) -> float:
    """Per cent of the branches below `folder` that were taken; 100 where there are none."""
    summaries = [file["summary"] for name, file in report["files"].items() if name.startswith(folder)]
    branches = sum(summary["num_branches"] for summary in summaries)
    return 100.0 * sum(summary["covered_branches"] for summary in summaries) / branches if branches else 100.0


def shortfalls(report: dict[str, Any]) -> dict[str, float]:
    """Folders below their floor, with what they reached."""
    reached = {folder: branch_coverage(report, folder) for folder in FLOORS}
    return {folder: percent for folder, percent in reached.items() if percent < FLOORS[folder]}


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each package's branches under pytest-cov's table, which has just written the report."""
    report = json.loads(REPORT.read_text())
    terminalreporter.section("branch coverage")
    for folder, floor in FLOORS.items():
        terminalreporter.line(f"{folder:<28}{branch_coverage(report, folder):6.1f} %  (at least {floor:.0f} %)")
    if missing := shortfalls(report):
        terminalreporter.line(f"ERROR: below the floor: {', '.join(missing)}", red=True)
        session: pytest.Session = terminalreporter._session  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

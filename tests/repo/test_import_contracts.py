"""import-linter refuses what the architecture forbids: each offence is planted in a copy and must be found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.tracked import ROOT

LINTER = Path(sys.executable).parent / "lint-imports"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, without what cannot matter, in a folder of their own."""
    target = tmp_path_factory.mktemp("tree")
    for package in ("tidemill", "services", "dagster_defs"):
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", target / "pyproject.toml")
    return target


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [LINTER, "--no-cache", "--config", "pyproject.toml"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_tree_keeps_every_contract(copy: Path) -> None:
    linted = lint(copy)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("services/gateway/planted.py", "import services.scheduler.core", "Services speak gRPC"),
        ("tidemill/planted.py", "import services.gateway", "The library imports neither services"),
        ("tidemill/planted.py", "import dagster_defs", "The library imports neither services"),
        ("services/scheduler/core/planted.py", "import sqlite3", "The scheduler's core does no I/O"),
        ("services/scheduler/core/planted.py", "from pathlib import Path", "The scheduler's core does no I/O"),
        ("services/scheduler/core/planted.py", "import tidemill.store", "The scheduler's core does no I/O"),
        ("dagster_defs/planted.py", "def f():\n    import torch", "Dagster definitions need no engine"),
        ("dagster_defs/planted.py", "import services.gateway", "Dagster definitions need no engine"),
        ("tidemill/client/planted.py", "import pyarrow", "The client needs gRPC"),
        ("tidemill/client/planted.py", "import tidemill.segments", "The client needs gRPC"),
    ],
)
def test_a_planted_import_is_found(copy: Path, module: str, line: str, contract: str) -> None:
    planted = copy / module
    planted.write_text(f"{line}\n")
    try:
        linted = lint(copy)
    finally:
        planted.unlink()
    assert linted.returncode != 0
    broken = linted.stdout.partition("Broken contracts")[2]
    assert contract in broken
    assert "planted" in broken

"""The programs of docs/client.md and of examples/ run, as written, against a real service."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.tracked import ROOT
from tests.client.service import Service, running_service

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "docs" / "client.md").read_text())
PROGRAMS = sorted((ROOT / "examples").glob("client_*.py"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service")) as started, started.working():
        yield started


def run(service: Service, folder: Path, *command: str) -> str:
    environment = {**os.environ, **service.environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SAID = {
    "client.submit([": "row-1 answer to row-1\nrow-2 answer to row-2",
    "client.run(": "['answer to row-1', 'answer to row-2']",
    "DataFrame(": "answer to 8",
    "arrow_batches": "",
    "to_numpy": "(2, 4)",
    "async def main": "answer to row-5",
}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_program_of_the_document_does_what_it_says(number: int, service: Service, tmp_path: Path) -> None:
    program = BLOCKS[number]
    [words] = [said for mark, said in reversed(SAID.items()) if mark in program][:1]
    assert words in run(service, tmp_path, "-c", f"MODEL = {service.model!r}\n{program}")
    if "arrow_batches" in program:
        import pyarrow.parquet as pq

        assert pq.read_metadata(tmp_path / "answers.parquet").num_rows == 3000


def test_they_are_of_ten_lines() -> None:
    assert len(BLOCKS) == len(SAID)
    assert all(len([line for line in block.splitlines() if line.strip()]) <= 12 for block in BLOCKS)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_each_example_runs(program: Path, service: Service, tmp_path: Path) -> None:
    assert "answer to " in run(service, tmp_path, str(program))

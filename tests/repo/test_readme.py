"""What the README and the other documents tell people to type exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.tracked import ROOT, tracked_files

DOCUMENTS = [path for path in tracked_files() if path.suffix == ".md"]
README = (ROOT / "README.md").read_text()
BLOCKS = re.compile(r"^```(?:sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES = re.compile(r"`((?:tidemill|services|scripts|tests|dagster_defs|examples|deploy)/[\w./-]+\.\w+)`")
SERVICES = re.compile(r"tidemill\.v1\.(\w+)/(\w+)")


def shell_lines(path: Path) -> list[str]:
    return [line for block in BLOCKS.findall(path.read_text()) for line in block.splitlines()]


def help_of(*command: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", "tidemill.cli.main", *command, "--help"], capture_output=True, text=True, check=True
    )
    return finished.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in shell_lines(path) for word in re.findall(r"^make ([a-z-]+)", line)}
    named |= set(re.findall(r"`make ([a-z-]+)[^`]*`", path.read_text()))
    assert named <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_of_the_command_that_is_shown_exists(path: Path) -> None:
    for line in shell_lines(path):
        options = re.findall(r"(?<= )--[a-z-]+", line)
        if line.startswith("tidemill "):
            words = line.split()
            shown = help_of(words[1])
            if "COMMAND [ARGS]" in shown:
                shown = help_of(*words[1:3])
            assert all(option in shown for option in options), line


def test_every_rpc_that_is_called_exists() -> None:
    from tidemill.v1 import job_service_pb2

    for service, method in SERVICES.findall(README):
        descriptor = job_service_pb2.DESCRIPTOR.services_by_name[service]
        assert method in descriptor.methods_by_name


def test_it_says_that_the_default_model_s_answers_are_gibberish_and_how_to_run_a_real_one() -> None:
    assert "its answers are gibberish" in README
    assert "tidemill up --model Qwen/Qwen2.5-0.5B-Instruct" in README


def test_every_file_that_a_document_names_exists() -> None:
    for path in DOCUMENTS:
        for name in FILES.findall(path.read_text()):
            assert (ROOT / name).exists(), f"{path.name}: {name}"

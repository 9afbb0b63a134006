"""Runs `engine_host.py` and gives back what it found."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from services.inference.engine_config import EngineConfig, Refusal
from services.inference.tasks import ModelTasks
from tests.inference.engine_host import Work

__all__ = ["config", "refused", "run"]


def config(folder: Path, window: int, tasks: ModelTasks) -> EngineConfig:
    """A small engine on CPU in float32."""
    return EngineConfig(folder.name, str(folder), "cpu", window, "float32", 64 << 20, 64, 2048, tasks=tasks)


def run(work: Work, folder: Path) -> dict[str, Any]:
    """The answers to a `Work`."""
    source, target = folder / "work.pickle", folder / "answers.pickle"
    source.write_bytes(pickle.dumps(work))
    command = [sys.executable, "-W", "ignore", "-m", "tests.inference.engine_host", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-4000:]
    return pickle.loads(target.read_bytes())  # noqa: S301 - written by our own process


def refused(result: Any) -> tuple[str, str]:
    """Code and message of a row that must be refused."""
    assert isinstance(result, Refusal), result
    return result.code.value, result.message

"""Runs `engine_host.py` and gives back what it found."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from services.inference.engine_config import EngineConfig, Refusal
from services.inference.tasks import ModelTasks
from tests.inference.engine_host import Work

__all__ = ["config", "refused", "run"]

_SECONDS = 840.0


def config(folder: Path, window: int, tasks: ModelTasks) -> EngineConfig:
    """A small engine on CPU in float32."""
    return EngineConfig(folder.name, str(folder), "cpu", window, "float32", 64 << 20, 64, 2048, tasks=tasks)


def run(work: Work, folder: Path) -> dict[str, Any]:
    """The answers to a `Work`."""
    source, target = folder / "work.pickle", folder / "answers.pickle"
    source.write_bytes(pickle.dumps(work))
    command = [sys.executable, "-W", "ignore", "-m", "tests.inference.engine_host", str(source), str(target)]
    with (folder / "host.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            status = process.wait(_SECONDS)
        finally:
            # The engine core is its child and outlives it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
    assert status == 0, (folder / "host.log").read_text(errors="replace")[-4000:]
    return pickle.loads(target.read_bytes())  # noqa: S301 - written by our own process


def refused(result: Any) -> tuple[str, str]:
    """Code and message of a row that must be refused."""
    assert isinstance(result, Refusal), result
    return result.code.value, result.message

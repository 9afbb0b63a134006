"""Threads that may hang for ever."""

import asyncio
import os
import subprocess
import sys
import time
from contextvars import ContextVar
from pathlib import Path

import pytest

from services.inference.daemon import in_thread

PLACE = ContextVar("PLACE", default="elsewhere")

HANGS = """
import asyncio, sys
from services.inference.daemon import in_thread

async def main():
    await asyncio.wait([in_thread(lambda: open(sys.argv[1]).read())], timeout=0.2)

asyncio.run(main())
print("ended")
"""


async def test_results_faults_and_context_pass() -> None:
    PLACE.set("here")
    assert await in_thread(PLACE.get) == "here"
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_who_leaves_hears_nothing_more() -> None:
    call = in_thread(lambda: time.sleep(0.05))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await in_thread(lambda: "next") == "next"


def test_a_process_ends_while_a_call_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-c", HANGS, str(tmp_path / "pipe")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("ended\n", "")

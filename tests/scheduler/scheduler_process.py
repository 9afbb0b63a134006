"""A scheduler process of one's own: started on free ports, killed or stopped, started again on the same ledger."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 30


class SchedulerProcess:
    """`python -m services.scheduler` over a ledger in `home`."""

    def __init__(self, home: Path, **settings: object) -> None:
        """`settings` become `TIDEMILL_SCHEDULER_<NAME>`."""
        self._home = home
        self._ready_file = home / "scheduler.ready.json"
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "OTEL_"))
        }
        self._environment |= {
            "TIDEMILL_HOME": str(home),
            "TIDEMILL_READY_FILE": str(self._ready_file),
            "TIDEMILL_SCHEDULER_ADDRESS": "127.0.0.1:0",
            "TIDEMILL_SCHEDULER_HTTP_ADDRESS": "127.0.0.1:0",
            **{f"TIDEMILL_SCHEDULER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._process: asyncio.subprocess.Process | None = None
        self.address = ""
        self.http_address = ""

    async def start(self, *, same_address: bool = False) -> None:
        """Start and wait until it serves; with `same_address`, where it did before."""
        if same_address:
            self._environment["TIDEMILL_SCHEDULER_ADDRESS"] = self.address
        self._ready_file.unlink(missing_ok=True)
        process = await self._spawn()
        self._process = process
        async with asyncio.timeout(START_SECONDS):
            while not self._ready_file.exists():
                assert process.returncode is None, (await self.output())[-2000:]
                await asyncio.sleep(0.02)
        ready = json.loads(self._ready_file.read_text())
        self.address, self.http_address = ready["address"], ready["http_address"]

    async def run(self) -> tuple[int, str]:
        """Run one that is expected to end by itself; returns its status and output."""
        process = await self._spawn()
        async with asyncio.timeout(START_SECONDS):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.scheduler",
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    async def output(self) -> str:
        """What the process that ended has said."""
        assert self._process is not None
        output, _ = await self._process.communicate()
        return output.decode()

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    def freeze(self) -> None:
        """Let it stand still, with its connections open."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it without warning."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """End it in order; returns its exit status."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        async with asyncio.timeout(STOP_SECONDS):
            await process.communicate()
        self._process = None
        assert process.returncode is not None
        return process.returncode

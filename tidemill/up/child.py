"""One supervised process: started in a shim, restarted with growing pauses, stopped by SIGTERM and then SIGKILL."""

import os
import signal
import subprocess
import time
from collections.abc import Callable

from tidemill.up import tree
from tidemill.up.spec import Event, EventKind, ProcessSpec, Timing, python_module

_SHIM_SLACK_SECONDS = 5.0


class Child:
    """Owned by the supervisor's thread. Restarts happen in `look`, unless `stop` was called."""

    def __init__(self, spec: ProcessSpec, timing: Timing, report: Callable[[Event], None]) -> None:
        self.spec = spec
        self.ready = False
        self.failure: str | None = None
        self.waits_for = "being started"
        self.restarts = 0
        self._timing, self._report = timing, report
        self._shim: subprocess.Popen[bytes] | None = None
        self._early_deaths = 0
        self._was_ready = False
        self._pause = timing.first_pause
        self._start_at: float | None = 0.0
        self._started = 0.0
        self._kill_at: float | None = None
        self._reported = 0.0

    @property
    def running(self) -> bool:
        """Whether its processes exist."""
        return self._shim is not None

    @property
    def pid(self) -> int | None:
        """Process id of the service itself, while it runs."""
        return next(iter(tree.children(self._shim.pid)), None) if self._shim else None

    @property
    def shim_pid(self) -> int | None:
        """Process id of the shim, while it runs."""
        return self._shim.pid if self._shim else None

    def look(self) -> None:
        """Start it when that is due, note that it is ready, note that it died."""
        if self._shim is None:
            if self._start_at is not None and time.monotonic() >= self._start_at and not self.failure:
                self._start()
            return
        status = self._shim.poll()
        if status is not None:
            self._ended(status)
        elif self._kill_at is not None:
            self._press()
        elif not self.ready:
            self._check()

    def stop(self) -> None:
        """Ask it to end; `look` kills it when it does not."""
        self._start_at = None
        if self._shim is not None and self._kill_at is None:
            self._report(Event(self.spec.name, EventKind.STOPPING))
            self._started = time.monotonic()
            self._kill_at = self._started + self.spec.grace + _SHIM_SLACK_SECONDS
            self._shim.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything below it at once."""
        self._start_at = None
        if self._shim is not None:
            # The shim takes the loss of its parent as the order to kill all, which is wanted here.
            self._kill_at = time.monotonic() + _SHIM_SLACK_SECONDS
            self._shim.send_signal(signal.SIGHUP)

    def _start(self) -> None:
        if self.spec.ready_file:
            self.spec.ready_file.unlink(missing_ok=True)
        shim = python_module("tidemill.up.shim", str(os.getpid()), str(self.spec.grace))
        with self.spec.log.open("ab") as log:
            self._shim = subprocess.Popen(  # noqa: S603 - our own command
                [*shim, *self.spec.command],
                env=dict(self.spec.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started, self._start_at, self._kill_at = time.monotonic(), None, None
        self._reported = self._started
        self._report(Event(self.spec.name, EventKind.STARTING))

    def _check(self) -> None:
        waits_for = self.spec.check()
        if waits_for is not None:
            self.waits_for = waits_for
            self._report_waiting()
            return
        self.ready = self._was_ready = True
        self._report(Event(self.spec.name, EventKind.READY, seconds=time.monotonic() - self._started))

    def _report_waiting(self) -> None:
        now = time.monotonic()
        if now - self._reported >= self._timing.waiting:
            self._reported = now
            self._report(Event(self.spec.name, EventKind.WAITING, self.waits_for, now - self._started))

    def _press(self) -> None:
        if self._shim and self._kill_at is not None and time.monotonic() > self._kill_at:
            # The shim itself hangs. What it leaves behind is adopted, and killed, by the supervisor.
            self._shim.kill()

    def _ended(self, status: int) -> None:
        self._shim, self.ready = None, False
        lived = time.monotonic() - self._started
        if self._start_at is None and self._kill_at is not None:
            self._report(Event(self.spec.name, EventKind.STOPPED, describe(status), lived))
            return
        if not self._was_ready:
            self._early_deaths += 1
            if self._early_deaths >= self._timing.start_attempts:
                self.failure = describe(status)
                self._report(Event(self.spec.name, EventKind.EXITED, f"{self.failure}; given up"))
                return
        self._pause = self._timing.first_pause if lived > self._timing.healthy else self._pause
        self._report(
            Event(self.spec.name, EventKind.EXITED, f"{describe(status)}; starting again in {self._pause:g} s")
        )
        self._start_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, self._timing.longest_pause)
        self.restarts += 1


def describe(status: int) -> str:
    """A shim's exit status in words."""
    number = -status if status < 0 else status - 128
    if number > 0:
        return f"was killed by {signal.Signals(number).name}"
    return f"ended with status {status}"

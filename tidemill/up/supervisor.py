"""Keeps a set of processes running from a thread of its own, and ends all of them without a trace."""

import os
import threading
import time
from collections.abc import Callable, Sequence

from tidemill.errors import Reason, TidemillError
from tidemill.up import tree
from tidemill.up.child import Child
from tidemill.up.prctl import become_subreaper
from tidemill.up.spec import Event, ProcessSpec, Timing

_LOG_LINES = 15


class Supervisor:
    """Starts `specs` as their needs are met and restarts what dies.

    This process becomes a subreaper: whatever orphan reaches it was started by a child and is killed. So it must have
    no other children of its own, but those that exist before `start`.
    """

    def __init__(
        self, specs: Sequence[ProcessSpec], report: Callable[[Event], None], timing: Timing | None = None
    ) -> None:
        self._timing = timing or Timing()
        self.children = {spec.name: Child(spec, self._timing, report) for spec in specs}
        self._changed = threading.Condition()
        self._stopping = self._killing = self._crashed = False
        self._foreign: frozenset[int] = frozenset()
        # Not a daemon: the kernel kills the shims when the thread that started them ends.
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def start(self) -> None:
        """Begin; returns at once."""
        become_subreaper()
        self._foreign = frozenset(tree.children(os.getpid()))
        self._thread.start()

    def wait_ready(self, timeout: float, names: Sequence[str] = ()) -> None:
        """Return once all processes, or those in `names`, are ready.

        Raises UNAVAILABLE, with the end of its log, for a process that does not start.
        """
        wanted = [self.children[name] for name in names or self.children]
        end = time.monotonic() + timeout
        with self._changed:
            while not all(child.ready for child in wanted):
                self._raise_failure()
                if self._stopping:
                    self._raise_crash()
                    raise TidemillError(Reason.CANCELLED, "stopped while starting")
                if time.monotonic() > end:
                    _raise_timeout(wanted, timeout)
                self._changed.wait(0.2)

    def wait(self) -> None:
        """Return when the set was told to stop."""
        with self._changed:
            while not self._stopping:
                self._changed.wait(0.5)
        self._raise_crash()

    def _raise_crash(self) -> None:
        if self._crashed:
            raise TidemillError(Reason.INTERNAL, "the supervisor itself failed, see above; everything was stopped")

    def _raise_failure(self) -> None:
        for child in self.children.values():
            if child.failure:
                message = f"{child.spec.name} {child.failure} at its start; the end of {child.spec.log}:\n"
                raise TidemillError(Reason.UNAVAILABLE, message + log_tail(child.spec))

    def stop(self) -> None:
        """Stop all processes in order and return once none is left; call `kill` from elsewhere to hurry."""
        with self._changed:
            self._stopping = True
        if self._thread.ident is not None:
            while self._thread.is_alive():
                self._thread.join(0.2)

    def kill(self) -> None:
        """Make a stop in progress kill what is left."""
        with self._changed:
            self._stopping = self._killing = True

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._look()
                time.sleep(self._timing.tick)
            self._end_groups()
        except BaseException:
            self._crashed = True
            raise
        finally:
            # A fault of the supervisor's own must not leave processes without one.
            self._stopping = True
            self._end_everything()

    def _look(self) -> None:
        for child in self.children.values():
            if child.running or all(self.children[name].ready for name in child.spec.needs):
                child.look()
        self._kill_orphans(tree.known_children(os.getpid()))
        with self._changed:
            self._changed.notify_all()

    def _end_groups(self) -> None:
        for group in sorted({child.spec.stop_group for child in self.children.values()}):
            members = [child for child in self.children.values() if child.spec.stop_group == group]
            for child in members:
                child.stop()
            while any(child.running for child in members) and not self._killing:
                for child in self.children.values():
                    # A process of a later group that dies now is not started again: its stop is near.
                    if child.running:
                        child.look()
                time.sleep(self._timing.tick / 2)

    def _end_everything(self) -> None:
        for child in self.children.values():
            child.kill()
        while any(child.running for child in self.children.values()):
            for child in self.children.values():
                child.look()
            time.sleep(self._timing.tick / 2)
        while self._kill_orphans(tree.children(os.getpid())):
            time.sleep(self._timing.tick / 2)

    def _kill_orphans(self, below: Sequence[int]) -> bool:
        """Kill what was left to this process by a shim that was killed itself; True while there is something."""
        shims = {child.shim_pid for child in self.children.values()}
        orphans = [pid for pid in below if pid not in shims and pid not in self._foreign]
        for pid in orphans:
            tree.kill_all([*tree.descendants(pid), pid])
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue
        return bool(orphans)


def _raise_timeout(children: Sequence[Child], timeout: float) -> None:
    late = [child for child in children if not child.ready]
    what = "; ".join(f"{child.spec.name}: {child.waits_for}, log {child.spec.log}" for child in late)
    raise TidemillError(Reason.UNAVAILABLE, f"not ready after {timeout:g} s: {what}")


def log_tail(spec: ProcessSpec) -> str:
    """The last lines of a process's log."""
    try:
        lines = spec.log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])

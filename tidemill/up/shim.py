"""Runs one service as the root of its own process tree, and leaves nothing of that tree behind.

    python -m tidemill.up.shim PARENT_PID GRACE_SECONDS COMMAND...

Ray and vLLM start processes that outlive a killed parent. The shim is their subreaper: when the service ends, for
whatever reason, or when the supervisor is killed, everything below it is killed. SIGTERM and SIGINT are passed on to
the service as SIGTERM, which then has GRACE_SECONDS. The exit status is the service's; 128 + N for a signal N.
"""

import os
import signal
import sys
import time
from typing import NoReturn

from tidemill.up import tree
from tidemill.up.prctl import become_subreaper, signal_on_parent_death

_PARENT_DIED = signal.SIGHUP
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, _PARENT_DIED}


def main(arguments: list[str]) -> int:
    parent, grace, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    become_subreaper()
    signal_on_parent_death(_PARENT_DIED)
    # The parent may have died before the line above.
    if os.getppid() != parent:
        return 1
    service = _start(command)
    status = _follow(service, grace)
    tree.kill_descendants(os.getpid())
    return status if status >= 0 else 128 - status


def _start(command: list[str]) -> int:
    shim = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, shim)
    return pid


def _become(command: list[str], shim: int) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    signal_on_parent_death(signal.SIGKILL)
    if os.getppid() != shim:
        os._exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is the supervisor's
    except OSError as exc:
        os.write(2, f"cannot start {command[0]}: {exc.strerror}\n".encode())
    os._exit(127)


def _follow(service: int, grace: float) -> int:
    """The service's exit status, once it has ended or was killed."""
    kill_at: float | None = None
    while True:
        timeout = 3600.0 if kill_at is None else max(0.0, kill_at - time.monotonic())
        info = signal.sigtimedwait(_SIGNALS, timeout)
        number = 0 if info is None else info.si_signo
        if number == signal.SIGCHLD:
            ended = tree.reap()
            if service in ended:
                return ended[service]
        elif number == _PARENT_DIED:
            return -signal.SIGKILL
        elif number:
            kill_at = kill_at or time.monotonic() + grace
            tree.kill_all([service], signal.SIGTERM)
        elif kill_at is not None:
            return -signal.SIGKILL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

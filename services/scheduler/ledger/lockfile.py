"""One scheduler per ledger: an operating-system lock held for the life of the process."""

import fcntl
import os
from pathlib import Path

from tidemill.errors import Reason, TidemillError


class LockFile:
    """An exclusive lock on a file beside the ledger; the kernel drops it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, owner: str) -> None:
        """Take the lock and leave `owner` in the file, or raise LEDGER_LOCKED naming who has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 256).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise TidemillError(
                Reason.LEDGER_LOCKED,
                f"ledger {self._path.with_suffix('')} is in use by {holder}; stop that scheduler, or give this one "
                "a ledger of its own (TIDEMILL_SCHEDULER_LEDGER)",
                metadata={"lock": self._path, "holder": holder},
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{owner}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the lock; the file stays, or a waiting process could lock a file that is gone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

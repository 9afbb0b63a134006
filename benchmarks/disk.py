"""The raw rate of durable appends of a disk: what no queue with an fsync behind each group can beat per group."""

import os
import time
from pathlib import Path

RECORD_BYTES = 512


def fsyncs_per_second(folder: Path, seconds: float) -> float:
    """Appends of 512 bytes to a file in `folder`, each followed by fdatasync, one after the other."""
    path = folder / "fsync"
    record = os.urandom(RECORD_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        started, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            os.write(descriptor, record)
            os.fdatasync(descriptor)
            count += 1
        return count / elapsed
    finally:
        os.close(descriptor)
        path.unlink()

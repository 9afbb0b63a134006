"""Counts the jobs that a peer's workers have run and notes when the first and the last of them came.

Runs in a peer's own environment: nothing but the standard library may be imported here.
"""

import threading
import time


class Stopwatch:
    """Jobs per second between the first and the last of `jobs`."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._seen = 0
        self._started = 0.0
        self._lock = threading.Lock()
        self.done = threading.Event()
        self.jobs_per_s = 0.0

    def tick(self) -> None:
        """A job ran."""
        with self._lock:
            self._seen += 1
            if self._seen == 1:
                self._started = time.perf_counter()
            elif self._seen == self._jobs:
                self.jobs_per_s = (self._jobs - 1) / (time.perf_counter() - self._started)
                self.done.set()

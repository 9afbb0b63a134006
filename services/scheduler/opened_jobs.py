"""Archived jobs that were taken apart lately: whoever reads one page by page asks for it again with each page."""

import asyncio
from collections import OrderedDict

from services.scheduler import archived
from services.scheduler.archived import ArchivedJob

MAX_BYTES = 4 * 2**20
"""Sum of the blobs that stay, but for the newest, which always does. In memory a job takes about ten times its blob."""


class OpenedJobs:
    """The least recently used go first. A blob is compared, so that a row that has changed is never mistaken."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, tuple[bytes, ArchivedJob]] = OrderedDict()
        self._bytes = 0

    async def unpack(self, blob: bytes, name: str) -> ArchivedJob:
        """As `archived.unpack`, in a thread of its own, unless it is known."""
        known = self._jobs.get(name)
        if known is not None and known[0] == blob:
            self._jobs.move_to_end(name)
            return known[1]
        job = await asyncio.to_thread(archived.unpack, blob, name)
        self._put(name, blob, job)
        return job

    def _put(self, name: str, blob: bytes, job: ArchivedJob) -> None:
        before = self._jobs.pop(name, None)
        self._bytes += len(blob) - (len(before[0]) if before else 0)
        self._jobs[name] = blob, job
        while self._bytes > MAX_BYTES and len(self._jobs) > 1:
            _, (dropped, _) = self._jobs.popitem(last=False)
            self._bytes -= len(dropped)

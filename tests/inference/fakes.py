"""What stands in for parts that are slow to start or hard to break on purpose."""

import asyncio
from pathlib import Path

from services.inference.engine_config import EngineConfig, Probe
from services.inference.link import LeaseVoidError
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

__all__ = ["FakeEngineActor", "FakeScheduler"]


class FakeEngineActor:
    """An engine without vLLM; files in the model's folder make it fail: `fails` at load, `silent` at probes,
    `small` at loads with more than so many bytes of KV cache."""

    def __init__(self, config: EngineConfig) -> None:
        self._folder = Path(config.path)
        self._kv_cache_bytes = config.kv_cache_bytes

    async def load(self) -> float:
        if (self._folder / "fails").exists():
            raise ValueError("tensor lm_head.weight is missing")
        small = self._folder / "small"
        if small.exists() and self._kv_cache_bytes > int(small.read_text()):
            raise MemoryError("torch.OutOfMemoryError: out of memory")
        return 0.0

    async def probe(self) -> Probe:
        if (self._folder / "silent").exists():
            await asyncio.Event().wait()
        return Probe(1, 0)

    async def shutdown(self) -> None:
        """Nothing to end."""


class FakeScheduler:
    """A scheduler for one lease, with the methods of `SchedulerLink`: keeps parts and the finish.

    `refuse` is raised by the next commits in turn.
    """

    def __init__(self, segments: list[records_pb2.SegmentRef]) -> None:
        self._segments = segments
        self.committed: list[records_pb2.PartRef] = []
        self.finished: list[pb.FinishJobRequest] = []
        self.busy_seconds: list[float] = []
        self.cleaned: list[pb.FinishCleanupRequest] = []
        self.refuse: list[TidemillError] = []

    async def segments(self, job: str, void: asyncio.Event) -> list[records_pb2.SegmentRef]:
        return self._segments

    async def parts(self, job: str, void: asyncio.Event) -> list[records_pb2.PartRef]:
        return self.committed

    async def commit(self, request: pb.CommitPartRequest, void: asyncio.Event) -> pb.CommitPartResponse:
        if void.is_set():
            raise LeaseVoidError("void")
        if self.refuse:
            raise self.refuse.pop()
        taken = sum(int.from_bytes(part.row_bitmap, "little") for part in self.committed if _same(part, request.part))
        if taken & int.from_bytes(request.part.row_bitmap, "little"):
            raise TidemillError(Reason.PART_CONFLICT, "a row has a result already")
        self.committed.append(request.part)
        self.busy_seconds.append(request.busy_seconds)
        return pb.CommitPartResponse()

    async def finish(self, request: pb.FinishJobRequest, void: asyncio.Event) -> records_pb2.JobRecord:
        self.finished.append(request)
        return records_pb2.JobRecord()

    async def finish_cleanup(self, request: pb.FinishCleanupRequest, void: asyncio.Event) -> None:
        self.cleaned.append(request)


def _same(left: records_pb2.PartRef, right: records_pb2.PartRef) -> bool:
    return left.chunk_start == right.chunk_start

"""A worker without engine and store: it leases chunks, answers nothing, commits parts that it makes up, and keeps a
history of what it was told."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from tests.scheduler import builders
from tests.scheduler.caller import Caller, passes
from tests.scheduler.histories import Committed, Granted, History
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

_GONE = frozenset({Reason.STALE_FENCE, Reason.JOB_TERMINAL, Reason.CHUNK_NOT_LEASED})


class FakeChunkWorker:
    """Works on whatever there is until it is cancelled or has closed a job."""

    def __init__(self, addresses: str, worker_id: str, history: History, chunks: int = 16) -> None:
        self._caller = Caller(addresses)
        self._id = worker_id
        self._history = history
        self._chunks = chunks
        self._held: dict[int, pb.LeaseKey] = {}

    async def run(self, done: asyncio.Event) -> None:
        """Work until `done`, which it sets itself when it closes a job."""
        async with self._caller:
            extending = asyncio.create_task(self._extend())
            try:
                while not done.is_set():
                    leases = await self._lease()
                    await asyncio.gather(*(self._work(lease, done) for lease in leases))
            finally:
                extending.cancel()

    async def _lease(self) -> list[pb.Lease]:
        request = pb.LeaseChunksRequest(worker_id=self._id, models=[builders.report()], max_chunks=self._chunks)
        request.wait.FromSeconds(1)
        try:
            leases = list((await self._caller.once("LeaseChunks", request, seconds=5)).leases)
        except TidemillError as error:
            if not passes(error):
                raise
            await asyncio.sleep(0.05)
            return []
        for lease in leases:
            self._history.granted.append(Granted(self._id, lease.fence, lease.chunk_start, lease.chunk_rows))
            self._held[lease.fence] = pb.LeaseKey(job=lease.spec.name, fence=lease.fence)
        return leases

    async def _work(self, lease: pb.Lease, done: asyncio.Event) -> None:
        try:
            if lease.kind == pb.LEASE_KIND_FINALISE:
                await self._close(lease, done)
            elif lease.kind == pb.LEASE_KIND_CHUNK:
                finished = int.from_bytes(lease.done_bitmap, "little")
                rows = [row for row in range(lease.chunk_rows) if not finished >> row & 1]
                half = max(1, len(rows) // 2)
                for number, some in enumerate((rows[:half], rows[half:])):
                    if some and not await self._commit(builders.part(lease, set(some), number=number)):
                        return
        finally:
            self._held.pop(lease.fence, None)

    async def _commit(self, request: pb.CommitPartRequest) -> bool:
        """Repeat until the fate of the part is known; returns whether the lease is still ours."""
        while True:
            outcome = await self._attempt("CommitPart", request)
            self._history.committed.append(Committed(time.monotonic(), request.part, outcome))
            if outcome != "unknown":
                return outcome == "ok"
            await asyncio.sleep(0.05)

    async def _attempt(self, method: str, request: Any) -> str:
        try:
            await self._caller.once(method, request, seconds=5)
        except TidemillError as error:
            if error.reason in _GONE:
                return "stale"
            if not passes(error):
                raise
            return "unknown"
        return "ok"

    async def _close(self, lease: pb.Lease, done: asyncio.Event) -> None:
        record: records_pb2.JobRecord = await self._caller.call("GetJob", pb.GetJobRequest(job=lease.spec.name))
        tally = records_pb2.RowTally(
            succeeded=record.row_counts.succeeded,
            prompt_tokens=record.usage.prompt_tokens,
            output_tokens=record.usage.output_tokens,
        )
        while True:
            outcome = await self._attempt("FinishJob", builders.finish(lease, tally))
            if outcome == "ok":
                done.set()
            if outcome != "unknown":
                return
            await asyncio.sleep(0.05)

    async def _extend(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            request = pb.ExtendLeasesRequest(
                worker_id=self._id, leases=list(self._held.values()), models=[builders.report()]
            )
            # What a failure means, the next commit says.
            with suppress(TidemillError):
                await self._caller.once("ExtendLeases", request, seconds=2)

"""The callers' side of `benchmarks.scheduler`: a process of its own that leases and commits over gRPC.

    python -m benchmarks.cycles ADDRESS HTTP_ADDRESS --callers 64 --seconds 5 --repeats 3

Each caller is a worker with one call in flight: it leases a batch of chunks, commits all rows of each in one part, and
starts over. A cycle is one chunk leased and committed; each call is answered only when its events are on the disk. The
last line is one JSON object.
"""

import argparse
import asyncio
import json
import time
import urllib.request
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import cycle_messages
from tidemill.channel import call, open_channel
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.internal.v1 import scheduler_service_pb2_grpc

TENANTS = 4
JOBS_PER_TENANT = 4
WARM_SECONDS = 1.0
MODEL = "load"
PROBE_MODEL = "probe"
CALL_SECONDS = 60.0


@dataclass(frozen=True)
class Cycles:
    """What the callers saw.

    Attributes:
        cycles_per_s: of each repeat.
        first_lease_ms: from the call that seals a job until an idle worker holds its first lease, of each try.
        events_per_append: mean size of a group commit under load.
    """

    cycles_per_s: list[float]
    first_lease_ms: list[float]
    events_per_append: float


class Load:
    """Callers of one scheduler."""

    def __init__(self, stub: Any, batch: int) -> None:
        self._stub = stub
        self._batch = batch
        self.done = 0

    async def queue(self, tenant: str, number: int, model: str, rows: int = cycle_messages.JOB_ROWS) -> str:
        """A job ready to be sealed."""
        job = cycle_messages.spec(tenant, number, model)
        await self._call("CreateJob", pb.CreateJobRequest(spec=job))
        opened = await self._call("OpenWriter", pb.OpenWriterRequest(job=job.name))
        await self._call("CommitSegment", cycle_messages.segment(job.name, opened.writer_epoch, rows))
        return job.name

    async def seal(self, job: str, rows: int = cycle_messages.JOB_ROWS) -> None:
        """Queue the job's rows."""
        await self._call("SealJob", cycle_messages.seal(job, rows))

    async def prepare(self) -> None:
        """More chunks than the run can take."""
        for number in range(TENANTS * JOBS_PER_TENANT):
            await self.seal(await self.queue(f"tenant-{number % TENANTS}", number + 1, MODEL))

    async def worker(self, worker_id: str) -> None:
        """Cycles until cancelled."""
        request = cycle_messages.lease_request(worker_id, MODEL, wait_seconds=10, chunks=self._batch)
        while True:
            for lease in (await self._call("LeaseChunks", request)).leases:
                await self.answer(lease)

    async def answer(self, lease: pb.Lease) -> None:
        """Commit the chunk, or close the job."""
        if lease.kind == pb.LEASE_KIND_CHUNK:
            await self._call("CommitPart", cycle_messages.part(lease))
            self.done += 1
        elif lease.kind == pb.LEASE_KIND_FINALISE:
            await self._call("FinishJob", cycle_messages.finish(lease))

    async def first_lease(self, number: int) -> float:
        """Milliseconds from seal to lease, with one worker waiting in its long poll."""
        job = await self.queue("prober", number, PROBE_MODEL, rows=1)
        poll = asyncio.create_task(self._poll())
        # A later call on the same connection is answered: the poll has arrived and waits.
        await self._call("GetJob", pb.GetJobRequest(job=job))
        started = time.perf_counter()
        sealing = asyncio.create_task(self.seal(job, rows=1))
        chunk = await poll
        elapsed = time.perf_counter() - started
        await sealing
        await self.answer(chunk)
        await self.answer(await self._poll())
        return elapsed * 1000

    async def _poll(self) -> pb.Lease:
        [lease] = (await self._call("LeaseChunks", cycle_messages.lease_request("idle", PROBE_MODEL, 20))).leases
        return lease

    async def _call(self, method: str, request: Any) -> Any:
        return await call(getattr(self._stub, method), request, timeout=CALL_SECONDS)


async def measure(address: str, http_address: str, options: argparse.Namespace) -> Cycles:
    """Latency on the idle scheduler first, then the load."""
    channel = open_channel(address)
    try:
        load = Load(scheduler_service_pb2_grpc.SchedulerServiceStub(channel), options.batch)
        latencies = [await load.first_lease(1_000_000 + number) for number in range(options.probes)]
        await load.prepare()
        workers = [asyncio.create_task(load.worker(f"caller-{number}")) for number in range(options.callers)]
        await asyncio.sleep(WARM_SECONDS)
        before = group_sums(http_address)
        rates = [await rate(load, workers, options.seconds) for _ in range(options.repeats)]
        appends, events = (now - then for now, then in zip(group_sums(http_address), before, strict=True))
        for task in workers:
            task.cancel()
        await asyncio.wait(workers)
    finally:
        await channel.close(None)
    return Cycles(rates, latencies, events / appends)


async def rate(load: Load, workers: "list[asyncio.Task[None]]", seconds: float) -> float:
    """Cycles per second over about `seconds`; the first caller that failed raises."""
    started, before = time.perf_counter(), load.done
    finished, _ = await asyncio.wait(workers, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in finished:
        task.result()
    return (load.done - before) / (time.perf_counter() - started)


def group_sums(http_address: str) -> tuple[float, float]:
    """Appends and events so far, by the scheduler's own metrics."""
    with urllib.request.urlopen(f"http://{http_address}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("tidemill_scheduler_group_events_"))
    return (
        float(values["tidemill_scheduler_group_events_count"]),
        float(values["tidemill_scheduler_group_events_sum"]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="the scheduler's gRPC address")
    parser.add_argument("http_address", help="its address of /metrics")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1, help="chunks that a call leases")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--probes", type=int, default=20)
    options = parser.parse_args()
    figures = asyncio.run(measure(options.address, options.http_address, options))
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()

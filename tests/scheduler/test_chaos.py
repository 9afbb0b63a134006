"""Two thousand chunks while leader, standby and Redis are killed and frozen; then what the clients saw is checked."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.scheduler import builders
from tests.scheduler.caller import Caller
from tests.scheduler.cluster import Cluster, running
from tests.scheduler.fake_chunk_worker import FakeChunkWorker
from tests.scheduler.histories import Committed, Granted, History, Read, faults
from tests.scheduler.scheduler_process import SchedulerProcess
from tests.scheduler.service_desk import until
from tidemill.errors import TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

CHUNK_ROWS = 10
ROWS = 2000 * CHUNK_ROWS
WORKERS = 3
JOB = builders.job_name(1)

Fault = Callable[[Cluster], Awaitable[None]]


async def kill_the_leader(cluster: Cluster) -> None:
    leader = await cluster.leader()
    await leader.kill()
    await cluster.takeover(leader, "kill -9")
    await leader.start(same_address=True)


async def freeze_the_leader(cluster: Cluster) -> None:
    leader = await cluster.leader()
    leader.freeze()
    await cluster.takeover(leader, "SIGSTOP")
    # The heir goes on, and readers ask the frozen one, whose answers would be old.
    await asyncio.sleep(1)
    leader.thaw()


async def kill_the_standby(cluster: Cluster) -> None:
    (standby,) = cluster.others(await cluster.leader())
    await standby.kill()
    await standby.start(same_address=True)


async def freeze_the_standby(cluster: Cluster) -> None:
    (standby,) = cluster.others(await cluster.leader())
    standby.freeze()
    await asyncio.sleep(1)
    standby.thaw()


async def kill_redis(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.redis.restart)


async def freeze_redis(cluster: Cluster) -> None:
    cluster.redis.freeze()
    await asyncio.sleep(1.5)
    cluster.redis.thaw()


FAULTS: list[Fault] = [
    kill_the_leader,
    kill_redis,
    freeze_the_standby,
    freeze_the_leader,
    freeze_redis,
    kill_the_standby,
    kill_redis,
]


async def prepare(cluster: Cluster) -> None:
    async with Caller(cluster.addresses) as caller:
        await caller.call("CreateJob", pb.CreateJobRequest(spec=builders.spec(1)))
        await caller.call("OpenWriter", pb.OpenWriterRequest(job=JOB))
        await caller.call("CommitSegment", builders.segment(JOB, 0, ROWS))
        await caller.call("SealJob", builders.seal(JOB, ROWS))


async def read_at(scheduler: SchedulerProcess, history: History, done: asyncio.Event) -> None:
    """Ask one scheduler, whether it leads or only thinks so, and go on asking while it stands still."""
    async with Caller(scheduler.address) as caller, asyncio.TaskGroup() as asking:
        while not done.is_set():
            asking.create_task(read_once(caller, history))
            await asyncio.sleep(0.1)


async def read_once(caller: Caller, history: History) -> None:
    began = time.monotonic()
    with suppress(TidemillError):
        record = await caller.once("GetJob", pb.GetJobRequest(job=JOB), seconds=20)
        history.reads.append(Read(began, time.monotonic(), record.row_counts.succeeded))


async def sent(history: History, rows: int, done: asyncio.Event) -> bool:
    return done.is_set() or sum(commit.part.row_count for commit in history.committed) >= rows


async def inject(cluster: Cluster, history: History, done: asyncio.Event) -> None:
    """One fault after each share of the work, so that all of them meet work in progress."""
    for number, fault in enumerate(FAULTS, 1):
        due = ROWS * number // (len(FAULTS) + 1)
        await until(partial(sent, history, due, done), 500)
        assert not done.is_set(), f"the work was over before {fault.__name__}"
        began = time.monotonic()
        await fault(cluster)
        print(f"{fault.__name__}: {time.monotonic() - began:.2f} s")


async def parts_of(caller: Caller) -> list[records_pb2.PartRef]:
    parts: list[records_pb2.PartRef] = []
    more = True
    while more:
        page = await caller.call("ListParts", pb.ListPartsRequest(job=JOB, after_part=len(parts), limit=1000))
        parts.extend(page.parts)
        more = page.more
    return parts


@pytest.mark.timeout(600)
async def test_histories_are_clean_after_faults(tmp_path: Path):
    began = time.monotonic()
    history, done = History(), asyncio.Event()
    async with running(tmp_path, chunk_rows=CHUNK_ROWS, lease_seconds=3, max_attempts=100) as cluster:
        await prepare(cluster)
        readers = [asyncio.create_task(read_at(each, history, done)) for each in cluster.schedulers]
        workers = [FakeChunkWorker(cluster.addresses, f"w{number}", history) for number in range(WORKERS)]
        async with asyncio.timeout(500):
            await asyncio.gather(inject(cluster, history, done), *(worker.run(done) for worker in workers))
        await asyncio.gather(*readers)
        async with Caller(cluster.addresses) as caller:
            record = await caller.call("GetJob", pb.GetJobRequest(job=JOB))
            parts = await parts_of(caller)
    print(f"{len(parts)} parts, {len(history.granted)} leases, {len(history.reads)} reads")
    print(f"{time.monotonic() - began:.1f} s in all")
    assert record.state == job_pb2.JOB_STATE_SUCCEEDED
    assert record.row_counts == job_pb2.RowCounts(total=ROWS, succeeded=ROWS)
    assert len({part.chunk_start for part in parts}) >= 2000
    assert faults(history, parts, ROWS) == []


# The checker itself: it must see each kind of fault.

LEASE = pb.Lease(spec=builders.spec(1), fence=7, chunk_start=0, chunk_rows=2)
PART = builders.part(LEASE, {0, 1}).part


def clean() -> History:
    return History([Granted("w", 7, 0, 2)], [Committed(1.0, PART, "ok")], [Read(0.0, 0.5, 0), Read(2.0, 2.5, 2)])


def test_a_clean_history_has_no_faults():
    assert faults(clean(), [PART], 2) == []


def test_each_kind_of_fault_is_seen():
    other = builders.part(LEASE, {1}, number=1).part
    assert "row 1 has 2 results" in faults(clean(), [PART, other], 2)
    assert "row 2 has 0 results" in faults(clean(), [PART], 3)
    assert any("acknowledged and is lost" in fault for fault in faults(clean(), [], 0))
    assert any("nobody sent" in fault for fault in faults(clean(), [PART, other], 2))
    twice, falling, stale, old, lost = clean(), clean(), clean(), clean(), clean()
    twice.granted.append(Granted("v", 7, 0, 2))
    assert "fence 7 was given out 2 times" in faults(twice, [PART], 2)
    falling.granted.append(Granted("w", 6, 0, 2))
    assert "w got fence 6 after 7" in faults(falling, [PART], 2)
    stale.committed.insert(0, Committed(0.5, other, "stale"))
    assert "fence 7 was stale and took part 0" in faults(stale, [PART], 2)
    old.reads.append(Read(3.0, 3.1, 1))
    assert any("showed 1 rows, and 2 were known" in fault for fault in faults(old, [PART], 2))
    lost.reads = [Read(1.5, 1.6, 0)]
    assert any("showed 0 rows, and 2 were known" in fault for fault in faults(lost, [PART], 2))

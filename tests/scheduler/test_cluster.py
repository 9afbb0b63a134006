"""Two scheduler processes on one Redis: one leads, the other takes over; the former leader can do no harm."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.scheduler.ledger import frames
from tests.scheduler import builders
from tests.scheduler.caller import Caller, passes
from tests.scheduler.cluster import Cluster, running, serves
from tests.scheduler.scheduler_process import SchedulerProcess
from tests.scheduler.service_desk import until
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

EVENTS = "{tidemill:default}:events"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path) as cluster:
        yield cluster


async def create(caller: Caller, number: int) -> records_pb2.JobRecord:
    return await caller.call("CreateJob", pb.CreateJobRequest(spec=builders.spec(number)))


async def readiness(scheduler: SchedulerProcess) -> dict[str, Any]:
    def fetch() -> str:
        try:
            with urllib.request.urlopen(f"http://{scheduler.http_address}/readyz", timeout=10) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()

    return json.loads(await asyncio.to_thread(fetch))


async def says(scheduler: SchedulerProcess, key: str, value: object) -> bool:
    return (await readiness(scheduler)).get(key) == value


async def mentions_upgrade(scheduler: SchedulerProcess) -> bool:
    return "upgrade this scheduler" in (await readiness(scheduler)).get("unable", "")


async def steps_back(scheduler: SchedulerProcess) -> bool:
    return not await serves(scheduler.address)


async def polled(scheduler: SchedulerProcess) -> bool:
    """A worker's long poll has arrived: its models are known."""
    async with Caller(scheduler.address) as caller:
        return bool((await caller.once("ListModels", pb.ListModelsRequest())).models)


def events(cluster: Cluster) -> list[ledger_pb2.LedgerEvent]:
    with cluster.redis.client() as client:
        return [frames.unpack(frame) for frame in client.lrange(EVENTS, 0, -1)]


async def test_a_standby_says_who_leads(cluster: Cluster):
    leader, standby = cluster.schedulers
    assert not await serves(standby.address)
    assert (await readiness(leader))["ready"]
    await until(lambda: says(standby, "leader", leader.address), 30)
    found = await readiness(standby)
    assert (found["ready"], found["role"]) == (False, "standby")
    async with Caller(standby.address) as caller:
        for method, request in (
            ("GetJob", pb.GetJobRequest(job=builders.job_name())),
            ("ListModels", pb.ListModelsRequest()),
            ("LeaseChunks", pb.LeaseChunksRequest(worker_id="w1", models=[builders.report()], max_chunks=1)),
        ):
            with pytest.raises(TidemillError) as caught:
                await caller.once(method, request)
            assert caught.value.reason is Reason.NOT_LEADER
            assert caught.value.metadata["leader"] == leader.address
            assert caught.value.retry_after


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_a_standby_takes_over_from_a_leader_that_fell_silent(cluster: Cluster, fault: str):
    leader, standby = cluster.schedulers
    async with Caller(cluster.addresses) as caller, Caller(leader.address) as direct:
        await create(direct, 1)
        if fault == "kill":
            await leader.kill()
        else:
            leader.freeze()
        began = time.monotonic()
        heir, record = await asyncio.gather(cluster.takeover(leader, fault), create(caller, 2))
        print(f"a call went through after {time.monotonic() - began:.2f} s")
        assert heir is standby
        assert record.spec.name == builders.job_name(2)
        assert (await caller.call("GetJob", pb.GetJobRequest(job=builders.job_name(1)))).spec.name
        if fault == "freeze":
            await check_the_frozen_one(cluster, leader, direct)


async def check_the_frozen_one(cluster: Cluster, frozen: SchedulerProcess, caller: Caller) -> None:
    """Calls that reach it while it is frozen, and as it wakes, read nothing old and write nothing."""
    before = events(cluster)
    read = asyncio.create_task(caller.once("GetJob", pb.GetJobRequest(job=builders.job_name(1))))
    write = asyncio.create_task(caller.once("CreateJob", pb.CreateJobRequest(spec=builders.spec(9))))
    await asyncio.sleep(0.1)
    frozen.thaw()
    for waiting in (read, write):
        with pytest.raises(TidemillError) as caught:
            await waiting
        assert passes(caught.value)
    await until(lambda: says(frozen, "role", "standby"), 30)
    assert events(cluster) == before


async def test_a_leader_that_is_stopped_hands_over_at_once(cluster: Cluster):
    leader, standby = cluster.schedulers
    async with Caller(cluster.addresses) as caller:
        await create(caller, 1)
        lease = pb.LeaseChunksRequest(worker_id="w1", models=[builders.report(model="other")], max_chunks=1)
        lease.wait.FromSeconds(30)
        poll = asyncio.create_task(caller.once("LeaseChunks", lease, seconds=40))
        await until(lambda: polled(leader), 30)
        stopping = asyncio.create_task(leader.stop())
        assert await cluster.takeover(leader, "SIGTERM") is standby
        await create(caller, 2)
        assert await stopping == 0
        assert list((await poll).leases) == []
        await leader.start()
        await until(lambda: says(leader, "leader", standby.address), 30)
    assert {event.epoch for event in events(cluster)} == {1, 2}


async def test_a_watch_goes_on_at_the_next_leader(cluster: Cluster):
    leader, _ = cluster.schedulers
    async with Caller(cluster.addresses) as caller:
        record = await create(caller, 1)
        watch = aiter(caller.stub.WatchJob(pb.WatchJobRequest(job=record.spec.name)))
        assert (await anext(watch)).job.spec.name == record.spec.name
        leader.freeze()
        with pytest.raises(Exception, match="does not lead any more"):
            async with asyncio.timeout(60):
                await anext(watch)
        leader.thaw()


async def test_redis_may_die_and_come_back(cluster: Cluster):
    leader, _ = cluster.schedulers
    async with Caller(cluster.addresses) as caller:
        await create(caller, 1)
        cluster.redis.restart()
        await create(caller, 2)
        cluster.redis.kill()
        await until(lambda: steps_back(leader), 60)
        with pytest.raises(TidemillError) as caught:
            await caller.once("GetJob", pb.GetJobRequest(job=builders.job_name(1)))
        assert caught.value.reason in (Reason.NOT_LEADER, Reason.UNAVAILABLE)
        assert not (await readiness(leader))["ready"]
        cluster.redis.start()
        await create(caller, 3)
        for number in (1, 2, 3):
            await caller.call("GetJob", pb.GetJobRequest(job=builders.job_name(number)))


async def test_a_redis_that_stands_still_delays_and_loses_nothing(cluster: Cluster):
    async with Caller(cluster.addresses) as caller:
        await create(caller, 1)
        cluster.redis.freeze()
        waiting = asyncio.create_task(create(caller, 2))
        await asyncio.sleep(4)
        assert not waiting.done()
        cluster.redis.thaw()
        assert (await waiting).spec.name == builders.job_name(2)
        assert [event.job_created.spec.name for event in events(cluster)].count(builders.job_name(2)) == 1


async def test_no_memory_refuses_new_work_and_reads_on(cluster: Cluster):
    async with Caller(cluster.addresses) as caller:
        await create(caller, 1)
        with cluster.redis.client() as client:
            client.config_set("maxmemory", 1_000_000)
            with pytest.raises(TidemillError) as caught:
                await caller.once("CreateJob", pb.CreateJobRequest(spec=builders.spec(2)))
            assert caught.value.reason is Reason.LEDGER_FULL
            await caller.once("GetJob", pb.GetJobRequest(job=builders.job_name(1)))
            client.config_set("maxmemory", 0)
        # The leader looks for room at most once a second.
        await caller.until_there_is_room("CreateJob", pb.CreateJobRequest(spec=builders.spec(2)))


async def test_events_that_nobody_here_knows_keep_a_standby_from_leading(tmp_path: Path):
    """A newer leader wrote one before it died; the older standby stays one, and the ledger stays as it is."""
    async with running(tmp_path) as cluster:
        leader, standby = cluster.schedulers
        async with Caller(cluster.addresses) as caller:
            await create(caller, 1)
            await leader.kill()
            # Field 1999 of no payload that there is.
            newer = ledger_pb2.LedgerEvent.FromString(b"\xfa\x7c\x00")
            newer.sequence, newer.epoch = len(events(cluster)) + 1, 1
            with cluster.redis.client() as client:
                client.rpush(EVENTS, frames.pack(newer))
            await until(lambda: mentions_upgrade(standby), 30)
            before = events(cluster)
            await asyncio.sleep(4)
            assert not await serves(standby.address)
            assert events(cluster) == before


async def test_an_unsafe_redis_ends_the_process_with_the_remedy(tmp_path: Path):
    cluster = Cluster(tmp_path, count=1)
    try:
        with cluster.redis.client() as client:
            client.config_set("appendfsync", "everysec")
        status, output = await cluster.schedulers[0].run()
        assert status == 1
        assert "LEDGER_UNSAFE" in output
        assert "CONFIG SET appendfsync always" in output
    finally:
        await cluster.close()

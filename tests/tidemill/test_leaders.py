"""A channel over several schedulers: finds the one that leads, believes a hint, leaves a leader that is followed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tidemill.channel import call
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2_grpc
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.leaders import SCHEDULER, LeaderChannel, open_leader_channel
from tidemill.status import abort

READY = grpc.ChannelConnectivity.READY


class FakeScheduler(cast("Any", scheduler_service_pb2_grpc).SchedulerServiceServicer):
    """Answers `GetJob` and `WatchJob` with its own address while it leads; else it names who does."""

    def __init__(self) -> None:
        self.server = grpc.aio.server()
        scheduler_service_pb2_grpc.add_SchedulerServiceServicer_to_server(self, self.server)
        self.health = cast("Any", health).aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.leader = ""
        self.silent = asyncio.Event()

    async def lead(self, leader: "FakeScheduler") -> None:
        """Know who leads."""
        self.leader = leader.address
        status = health_pb2.HealthCheckResponse
        await self.health.set(SCHEDULER, status.SERVING if leader is self else status.NOT_SERVING)

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> records_pb2.JobRecord:  # noqa: N802
        if request.job == "hang":
            self.silent.set()
            await asyncio.Event().wait()
        if self.leader != self.address:
            await abort(context, TidemillError(Reason.NOT_LEADER, "no", metadata={"leader": self.leader}))
        return records_pb2.JobRecord(spec=records_pb2.JobSpec(name=self.address))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:  # noqa: N802
        yield pb.WatchJobResponse(job=records_pb2.JobRecord(spec=records_pb2.JobSpec(name=self.address)))
        if request.job == "hang":
            await asyncio.Event().wait()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[FakeScheduler, FakeScheduler]]:
    first, second = FakeScheduler(), FakeScheduler()
    for scheduler in (first, second):
        await scheduler.server.start()
    yield first, second
    for scheduler in (first, second):
        await scheduler.server.stop(None)


@pytest.fixture
async def channel(pair: tuple[FakeScheduler, FakeScheduler]) -> AsyncIterator[LeaderChannel]:
    async with LeaderChannel([scheduler.address for scheduler in pair], SCHEDULER) as channel:
        yield channel


async def point_at(pair: tuple[FakeScheduler, FakeScheduler], leader: FakeScheduler) -> None:
    for scheduler in pair:
        await scheduler.lead(leader)


def stub(channel: Any) -> Any:
    return scheduler_service_pb2_grpc.SchedulerServiceStub(channel)


async def asked(channel: LeaderChannel) -> str:
    """Who answers; repeated as callers do."""
    async with asyncio.timeout(20):
        while True:
            try:
                return (await call(stub(channel).GetJob, pb.GetJobRequest(job="a"))).spec.name
            except TidemillError as error:
                if error.reason not in (Reason.NOT_LEADER, Reason.UNAVAILABLE):
                    raise
            await asyncio.sleep(0.01)


async def test_it_finds_the_leader_and_follows(pair: tuple[FakeScheduler, FakeScheduler], channel: LeaderChannel):
    for leader in (pair[1], pair[0], pair[1]):
        await point_at(pair, leader)
        assert await asked(channel) == leader.address


async def test_a_standby_that_knows_the_leader_is_believed(
    pair: tuple[FakeScheduler, FakeScheduler], channel: LeaderChannel
):
    await point_at(pair, pair[1])
    with pytest.raises(TidemillError) as caught:
        await call(stub(channel).GetJob, pb.GetJobRequest(job="a"))
    assert caught.value.metadata == {"leader": pair[1].address}
    assert (await call(stub(channel).GetJob, pb.GetJobRequest(job="a"))).spec.name == pair[1].address


async def test_a_call_that_hangs_fails_once_another_one_leads(
    pair: tuple[FakeScheduler, FakeScheduler], channel: LeaderChannel
):
    await point_at(pair, pair[0])
    assert await asked(channel) == pair[0].address
    hanging = asyncio.create_task(call(stub(channel).GetJob, pb.GetJobRequest(job="hang"), timeout=60))
    watch = aiter(stub(channel).WatchJob(pb.WatchJobRequest(job="hang")))
    assert (await anext(watch)).job.spec.name == pair[0].address
    await pair[0].silent.wait()
    await point_at(pair, pair[1])
    async with asyncio.timeout(20):
        with pytest.raises(TidemillError, match="does not lead any more"):
            await hanging
        with pytest.raises(grpc.aio.AioRpcError, match="does not lead any more"):
            await anext(watch)


async def test_a_stream_that_ends_is_over(pair: tuple[FakeScheduler, FakeScheduler], channel: LeaderChannel):
    await point_at(pair, pair[0])
    responses = [response async for response in stub(channel).WatchJob(pb.WatchJobRequest(job="a"))]
    assert [response.job.spec.name for response in responses] == [pair[0].address]


async def test_its_state_says_whether_somebody_leads(pair: tuple[FakeScheduler, FakeScheduler], channel: LeaderChannel):
    await point_at(pair, pair[1])
    async with asyncio.timeout(20):
        while channel.get_state(try_to_connect=True) is not READY:
            await channel.wait_for_state_change(channel.get_state())
        await pair[1].server.stop(None)
        await channel.wait_for_state_change(READY)


async def test_one_address_is_a_plain_channel():
    async with open_leader_channel("127.0.0.1:1") as channel:
        assert isinstance(channel, grpc.aio.Channel)
    with pytest.raises(ValueError, match="needs one address or more"):
        open_leader_channel(" , ")

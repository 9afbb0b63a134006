"""Schedulers of one ledger in one real Redis, all of them processes that a test may kill and freeze."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.scheduler.caller import DEADLINE
from tests.scheduler.redis_server import RedisServer
from tests.scheduler.scheduler_process import SchedulerProcess
from tidemill.channel import open_channel
from tidemill.leaders import SCHEDULER


class Cluster:
    """A Redis and its schedulers."""

    def __init__(self, folder: Path, count: int = 2, **settings: object) -> None:
        self.redis = RedisServer(folder / "redis")
        self.redis.start()
        settings = {"chunk_rows": 10, "lease_seconds": 5, **settings, "ledger": self.redis.url()}
        self.schedulers = [SchedulerProcess(folder / f"scheduler-{number}", **settings) for number in range(count)]

    async def start(self) -> None:
        """Start all; the one that comes to lead is then the first."""
        await asyncio.gather(*(scheduler.start() for scheduler in self.schedulers))
        leader = await self.leader()
        self.schedulers = [leader, *self.others(leader)]

    async def close(self) -> None:
        """End everything."""
        for scheduler in self.schedulers:
            await scheduler.kill()
        self.redis.kill()

    async def leader(self, among: Sequence[SchedulerProcess] = ()) -> SchedulerProcess:
        """Who leads, as soon as somebody does."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for scheduler in among or self.schedulers:
                    if scheduler.running and await serves(scheduler.address):
                        return scheduler
                await asyncio.sleep(0.01)

    def others(self, scheduler: SchedulerProcess) -> list[SchedulerProcess]:
        """All but one."""
        return [each for each in self.schedulers if each is not scheduler]

    @property
    def addresses(self) -> str:
        """What gateways and workers are given."""
        return ",".join(scheduler.address for scheduler in self.schedulers)

    async def takeover(self, leader: SchedulerProcess, fault: str) -> SchedulerProcess:
        """The scheduler that follows `leader`; prints how long that took."""
        began = time.monotonic()
        heir = await self.leader(self.others(leader))
        print(f"takeover after {fault}: {time.monotonic() - began:.2f} s")
        return heir


async def serves(address: str) -> bool:
    """Whether the scheduler at `address` says that it leads."""
    async with open_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=SCHEDULER), timeout=0.5)
        except grpc.aio.AioRpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def running(folder: Path, count: int = 2, **settings: object) -> AsyncGenerator[Cluster]:
    """A cluster that serves, until the block ends."""
    cluster = Cluster(folder, count, **settings)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.close()

"""The gateway over two schedulers: an append stream and a watch go on when the leader dies or stands still."""

import asyncio
from pathlib import Path

import pytest

from tests.gateway.client import GatewayClient, collect, pb, prompts
from tests.gateway.conftest import next_model
from tests.gateway.fake_worker import FakeWorker
from tests.scheduler.cluster import running
from tests.system.processes import Stack
from tidemill.store import open_store
from tidemill.v1 import job_pb2


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_a_stream_and_a_watch_follow_the_leader(tmp_path: Path, tokenizer: bytes, fault: str) -> None:
    model = next_model()
    async with running(tmp_path / "cluster", lease_seconds=60) as cluster:
        leader, standby = cluster.schedulers
        stack = Stack(tmp_path / "home", settings={"TIDEMILL_GATEWAY_SCHEDULER": cluster.addresses})
        try:
            await asyncio.to_thread(stack.start, "gateway")
            store = open_store((stack.home / "store").as_uri())
            first = FakeWorker(leader.address, store, model, tokenizer)
            await first.offer(first.report())
            async with GatewayClient(stack.address_of("gateway"), stack.key) as client:
                job = await client.create(model)
                stream = await client.append(job.name)
                await stream.send(0, prompts(0, 10))
                await stream.acked(10)
                watching = asyncio.create_task(
                    collect(client.jobs.WatchJob(pb.WatchJobRequest(name=job.name), metadata=client.metadata))
                )
                if fault == "kill":
                    await leader.kill()
                else:
                    leader.freeze()
                await stream.send(10, prompts(10, 10))
                await stream.acked(20)
                assert await stream.finish() == -1
                await first.close()
                async with FakeWorker(standby.address, store, model, tokenizer) as worker:
                    assert (await client.seal(job.name, 20)).state == job_pb2.JOB_STATE_QUEUED
                    await worker.run()
                    snapshots = [message.job for message in await watching if not message.heartbeat]
                assert snapshots[-1].state == job_pb2.JOB_STATE_SUCCEEDED
                assert snapshots[-1].row_counts == job_pb2.RowCounts(total=20, succeeded=20)
        finally:
            await asyncio.to_thread(stack.close)

"""SIGTERM at the real gateway: health first, then a last word on every stream, then the end within the grace."""

import asyncio
import time
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.gateway.client import AppendStream, GatewayClient, collect, pb, prompts, refused
from tests.gateway.conftest import SETTINGS, next_model
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import Stack
from tidemill.errors import TidemillError
from tidemill.store import open_store

GRACE_SECONDS = float(SETTINGS["TIDEMILL_GATEWAY_DRAIN_SECONDS"])
# Beside the grace a process takes time to end, and this machine may be busy.
SLACK_SECONDS = 15.0
Status = health_pb2.HealthCheckResponse


@pytest.fixture
async def own_worker(own_stack: Stack, tokenizer: bytes) -> Any:
    store = open_store((own_stack.home / "store").as_uri())
    async with FakeWorker(own_stack.address_of("scheduler"), store, next_model(), tokenizer) as started:
        yield started


async def stop(stack: Stack) -> float:
    """Seconds that the gateway takes to end in order."""
    started = time.monotonic()
    assert await asyncio.to_thread(stack.stop, "gateway") == 0
    return time.monotonic() - started


async def test_health_says_so_before_streams_end(own_stack: Stack, own_worker: FakeWorker) -> None:
    address = own_stack.address_of("gateway")
    async with GatewayClient(address, own_stack.key) as client, grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(service="tidemill.v1.JobService"))
        assert (await watching.read()).status == Status.SERVING
        job = await client.create(own_worker.model)
        stream = await client.append(job.name)
        await stream.send(0, prompts(0, 10))
        await stream.send(99, prompts(99, 1))
        await stream.error()
        stopping = asyncio.create_task(stop(own_stack))
        assert (await watching.read()).status == Status.NOT_SERVING
        await stream.acked(10)
        with refused("UNAVAILABLE"):
            await collect(stream.call)
        assert await stopping < GRACE_SECONDS + SLACK_SECONDS


async def test_a_client_that_holds_its_stream_does_not_hold_the_process(
    own_stack: Stack, own_worker: FakeWorker
) -> None:
    async with GatewayClient(own_stack.address_of("gateway"), own_stack.key) as client:
        job = await client.create(own_worker.model)
        stream = AppendStream(client.jobs.AppendRows(metadata=client.metadata))
        await stream.send(0, prompts(0, 1), job=job.name)
        submitting = client.jobs.SubmitJob(metadata=client.metadata)
        await submitting.write(pb.SubmitJobRequest(create=pb.CreateJobRequest(job=job)))
        assert await stop(own_stack) < GRACE_SECONDS + SLACK_SECONDS


async def test_rows_that_cannot_be_stored_do_not_hold_the_process(own_stack: Stack, own_worker: FakeWorker) -> None:
    async with GatewayClient(own_stack.address_of("gateway"), own_stack.key) as client:
        job = await client.create(own_worker.model)
        stream = await client.append(job.name)
        await asyncio.to_thread(own_stack.kill, "scheduler")
        await stream.send(0, prompts(0, 10))
        assert await stop(own_stack) < GRACE_SECONDS + SLACK_SECONDS
        with pytest.raises(TidemillError):
            await collect(stream.call)
    # The worker takes its leave of it.
    await asyncio.to_thread(own_stack.start, "scheduler")

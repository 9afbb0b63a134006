"""The gateway as a process: crashes, restarts, drain, health, metrics, traces, settings."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.gateway.client import EOF, AppendStream, GatewayClient, collect, pb, prompts, refused
from tests.gateway.conftest import next_model
from tests.gateway.fake_worker import FakeWorker
from tests.gateway.waiting import eventually
from tests.system.processes import ROOT, Stack
from tidemill.errors import Reason, TidemillError
from tidemill.segments import input_rows, read_segment
from tidemill.status import from_rpc_error
from tidemill.store import open_store
from tidemill.v1 import job_pb2

FRAME = 10
SERVICES = {
    "tidemill.v1.JobService",
    "tidemill.v1.ModelService",
    "tidemill.v1.AdminService",
    "tidemill.v1.QuotaService",
}


@pytest.fixture
def own(own_stack: Stack, tokenizer: bytes) -> "Own":
    return Own(own_stack, tokenizer)


class Own:
    """Processes of one test, with a worker and clients on demand."""

    def __init__(self, stack: Stack, tokenizer: bytes) -> None:
        self.stack = stack
        self.store = open_store((stack.home / "store").as_uri())
        self._tokenizer = tokenizer

    def client(self) -> GatewayClient:
        return GatewayClient(self.stack.address_of("gateway"), self.stack.key)

    def worker(self) -> FakeWorker:
        return FakeWorker(self.stack.address_of("scheduler"), self.store, next_model(), self._tokenizer)

    def stored_ids(self, job: job_pb2.Job) -> list[str]:
        """Custom ids as the sealed manifest names them."""
        folder = f"jobs/dev/{job.name.rpartition('/')[2]}/input"
        manifest = json.loads(self.store.get(f"{folder}/manifest-{job.input_data_version[:16]}.json"))
        tables = [read_segment(self.store, item["key"]) for item in manifest["segments"]]
        return [row.custom_id for table in tables for row in input_rows(table)]


async def append_until_broken(stream: AppendStream, start: int) -> int:
    """Send frames without waiting, read acknowledgements meanwhile; returns the last durable end promised."""
    promised = start

    async def send() -> None:
        for offset in range(start, 100_000, FRAME):
            await stream.send(offset, prompts(offset, FRAME))

    sending = asyncio.create_task(send())
    try:
        while (response := await stream.call.read()) is not EOF:
            assert response.ack.next_offset >= promised
            promised = response.ack.next_offset
    except grpc.aio.AioRpcError:
        pass
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    return promised


async def test_a_killed_gateway_loses_nothing_acknowledged_and_doubles_nothing(own: Own) -> None:
    async with own.worker() as worker, own.client() as first:
        job = await first.create(worker.model)
        promised = 0
        for _ in range(2):
            async with own.client() as client:
                stream = await client.append(job.name)
                appending = asyncio.create_task(append_until_broken(stream, promised))

                async def end(client: GatewayClient = client) -> int:
                    return (await client.get(job.name)).next_offset

                await eventually(end, lambda found, before=promised: found >= before + 400)
                await asyncio.to_thread(own.stack.kill, "gateway")
                acknowledged = await appending
            await asyncio.to_thread(own.stack.start, "gateway")
            async with own.client() as client:
                promised = (await client.get(job.name)).next_offset
                assert promised >= acknowledged
        async with own.client() as client:
            stream = await client.append(job.name)
            # The client does not know what became of its last frames: it sends some again, in another cut.
            again = max(0, promised - 25)
            await stream.send(again, prompts(again, promised - again))
            await stream.send(promised, prompts(promised, 5))
            assert await stream.finish() == promised + 5
            sealed = await client.seal(job.name, promised + 5)
        assert own.stored_ids(sealed) == [f"r{index}" for index in range(promised + 5)]


async def test_a_restarted_scheduler_costs_an_append_stream_only_time(own: Own) -> None:
    async with own.worker() as worker, own.client() as client:
        job = await client.create(worker.model)
        stream = await client.append(job.name)
        await stream.send(0, prompts(0, 10))
        await stream.acked(10)
        watching = asyncio.create_task(
            collect(client.jobs.WatchJob(pb.WatchJobRequest(name=job.name), metadata=client.metadata))
        )
        await asyncio.to_thread(own.stack.kill, "scheduler")
        await stream.send(10, prompts(10, 10))
        await asyncio.to_thread(own.stack.start, "scheduler")
        await stream.acked(20)
        assert await stream.finish() == -1
        assert (await client.seal(job.name, 20)).state == job_pb2.JOB_STATE_QUEUED
        await worker.run()
        snapshots = [message.job for message in await watching if not message.heartbeat]
        assert snapshots[-1].state == job_pb2.JOB_STATE_SUCCEEDED


async def test_sigterm_makes_durable_what_was_accepted_and_ends_streams_in_order(own: Own) -> None:
    async with own.worker() as worker, own.client() as client:
        job = await client.create(worker.model)
        stream = await client.append(job.name)
        watching = client.jobs.WatchJob(pb.WatchJobRequest(name=job.name), metadata=client.metadata)
        await watching.read()
        following = client.jobs.ReadResults(pb.ReadResultsRequest(name=job.name, follow=True), metadata=client.metadata)
        following_end = asyncio.create_task(ending_of(following))
        await stream.send(0, prompts(0, 10))
        await stream.acked(10)
        await stream.send(10, prompts(10, 10))
        await stream.send(99, prompts(99, 1))
        assert (await stream.error()).expected_offset == 20
        stopping = asyncio.create_task(asyncio.to_thread(own.stack.stop, "gateway"))
        await stream.acked(20)
        for call in (stream.call, watching):
            assert (await ending_of(call)).reason is Reason.UNAVAILABLE
        assert (await following_end).reason is Reason.UNAVAILABLE
        assert await stopping == 0
        assert (await worker.record(job.name)).next_offset == 20


async def ending_of(call: Any) -> TidemillError:
    try:
        while await call.read() is not EOF:
            pass
    except grpc.aio.AioRpcError as exc:
        return from_rpc_error(exc)
    raise AssertionError("the call ended without an error")


async def test_an_absent_scheduler_is_reported(own: Own) -> None:
    await asyncio.to_thread(own.stack.kill, "scheduler")

    async def ready() -> int:
        return await asyncio.to_thread(own.stack.http_status, "gateway", "/readyz")

    await eventually(ready, lambda status: status == 503)
    assert own.stack.http_status("gateway", "/healthz") == 200
    async with own.client() as client:
        with refused("DEADLINE_EXCEEDED"):
            try:
                await client.jobs.ListJobs(pb.ListJobsRequest(), metadata=client.metadata, timeout=1)
            except grpc.aio.AioRpcError as exc:
                raise from_rpc_error(exc) from None
        # The time is the caller's: within its own patience the gateway tries again.
        waiting = asyncio.create_task(client.unary(client.jobs.ListJobs, pb.ListJobsRequest()))
        await asyncio.to_thread(own.stack.start, "scheduler")
        await waiting
    await eventually(ready, lambda status: status == 200)


async def test_health_and_reflection_need_no_key(stack: Stack) -> None:
    address = stack.address_of("gateway")
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", *SERVICES):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with grpc.insecure_channel(address) as channel:
        services = await asyncio.to_thread(ProtoReflectionDescriptorDatabase(channel).get_services)
    assert set(services) >= SERVICES


def metric(stack: Stack, name: str) -> float:
    """Value of one series of the gateway; 0 where there is none yet."""
    import urllib.request

    with urllib.request.urlopen(f"http://{stack.ready['gateway']['http_address']}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)


async def test_metrics_count_rows_streams_and_refusals(stack: Stack, client: GatewayClient, worker: FakeWorker) -> None:
    rows, open_streams = "tidemill_gateway_rows_appended_total", 'tidemill_gateway_open_streams{kind="append"}'
    gaps = 'tidemill_gateway_frames_refused_total{reason="OFFSET_GAP"}'
    before = {name: metric(stack, name) for name in (rows, gaps)}

    async def streams() -> float:
        return metric(stack, open_streams)

    await eventually(streams, lambda count: count == 0)
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(5, prompts(5, 1))
    await stream.error()
    await stream.send(0, prompts(0, 7))
    await stream.acked(7)
    assert await streams() == 1
    assert metric(stack, rows) == before[rows] + 7
    assert metric(stack, gaps) == before[gaps] + 1
    # A client that vanishes leaves nothing open.
    stream.call.cancel()
    await eventually(streams, lambda count: count == 0)


async def test_one_trace_follows_the_job(stack: Stack, client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 10)])

    async def names() -> set[str]:
        path = stack.home / "telemetry" / "gateway.spans.jsonl"
        spans = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return {span["name"] for span in spans if span["context"]["trace_id"] == f"0x{job.trace_id}"}

    wanted = {"tidemill.v1.JobService/SubmitJob", "append segment", "seal"}
    await eventually(names, lambda found: wanted <= found)


@pytest.mark.parametrize("pepper", [None, "short"])
def test_a_gateway_without_a_proper_pepper_does_not_start(tmp_path: Path, pepper: str | None) -> None:
    environment = {**os.environ, "TIDEMILL_HOME": str(tmp_path)}
    environment.pop("TIDEMILL_GATEWAY_KEY_PEPPER", None)
    if pepper:
        environment["TIDEMILL_GATEWAY_KEY_PEPPER"] = pepper
    command = [sys.executable, "-m", "services.gateway"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "TIDEMILL_GATEWAY_KEY_PEPPER" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert pepper is None or pepper not in ended.stderr

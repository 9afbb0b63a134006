"""Clients that mean harm, or are broken: they get typed errors or nothing, and cost others neither memory nor time."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2

from tests.gateway import raw_http2 as raw
from tests.gateway.client import GatewayClient, collect, pb, prompts, refused
from tests.gateway.conftest import SETTINGS, next_model
from tests.gateway.fake_worker import FakeWorker
from tests.gateway.raw_http2 import RawConnection
from tests.gateway.test_process import metric
from tests.gateway.waiting import eventually
from tests.system.processes import PEPPER, Stack
from tidemill.errors import Reason, TidemillError
from tidemill.keys import create_key
from tidemill.status import from_rpc_error
from tidemill.store import open_store
from tidemill.v1 import row_pb2

APPEND = "/tidemill.v1.JobService/AppendRows"
WATCH = "/tidemill.v1.JobService/WatchJob"
GET = "/tidemill.v1.JobService/GetJob"
# Seconds within which others are served meanwhile, on a machine that runs other tests too.
PATIENCE = 5.0
MOST_GROWTH = 100 << 20
STREAMS = 64


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {**SETTINGS, "TIDEMILL_GATEWAY_TENANT_STREAMS": str(STREAMS)}
    stack = Stack(tmp_path_factory.mktemp("besieged"), settings=settings)
    try:
        for name in ("scheduler", "gateway"):
            stack.start(name)
        yield stack
    finally:
        stack.close()


def raw_channel(address: str) -> Any:
    """A channel whose calls take and give bytes."""
    return grpc.aio.insecure_channel(address)


class Siege:
    """The gateway under attack, a good client, and the attackers' key."""

    def __init__(self, stack: Stack, client: GatewayClient, worker: FakeWorker, attacker: str) -> None:
        self.stack = stack
        self.address = stack.address_of("gateway")
        self.client = client
        self.worker = worker
        self.attacker = attacker
        self.bearer = f"Bearer {attacker}"
        self._process = psutil.Process(stack.running["gateway"].pid)
        self._before = self._process.memory_info().rss

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """While it lasts, the good client is served in time; at its end memory is as bounded as it was."""
        job = await self.client.create(self.worker.model)
        slowest = 0.0

        async def call() -> None:
            nonlocal slowest
            while True:
                started = time.monotonic()
                await self.client.get(job.name)
                slowest = max(slowest, time.monotonic() - started)
                await asyncio.sleep(0.05)

        calling = asyncio.create_task(call())
        try:
            yield
            await self.client.fill(job.name, prompts(0, 10))
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
        assert slowest < PATIENCE
        assert self.growth() < MOST_GROWTH
        assert not calling.done() or calling.cancelled()

    def growth(self) -> int:
        return self._process.memory_info().rss - self._before

    async def no_streams(self, kind: str) -> None:
        async def open_streams() -> float:
            return await asyncio.to_thread(metric, self.stack, f'tidemill_gateway_open_streams{{kind="{kind}"}}')

        await eventually(open_streams, lambda count: count == 0)


@pytest.fixture
async def siege(besieged: Stack, tokenizer: bytes) -> AsyncIterator[Siege]:
    store = open_store((besieged.home / "store").as_uri())
    attacker = create_key(besieged.home / "keys.json", PEPPER, "attacker")
    async with (
        FakeWorker(besieged.address_of("scheduler"), store, next_model(), tokenizer) as worker,
        GatewayClient(besieged.address_of("gateway"), besieged.key) as client,
    ):
        yield Siege(besieged, client, worker, attacker)


async def test_clients_that_send_half_a_frame_and_vanish(siege: Siege) -> None:
    job = await siege.client.create(siege.worker.model)
    siege_key = f"Bearer {siege.stack.key}"
    first = raw.message(pb.AppendRowsRequest(job=job.name).SerializeToString())
    rows = raw.message(pb.AppendRowsRequest(rows=prompts(0, 400)).SerializeToString())
    async with siege.held():
        for number in range(100):
            line = await RawConnection.open(siege.address)
            await line.say(raw.PREFACE, raw.settings(), raw.headers(1, APPEND, siege_key), raw.data(1, first))
            # Cut within a message, within a frame's payload, or within its head.
            whole = raw.data(1, rows[: 100 + 20 * number])
            await line.say(whole[: (len(whole), len(whole) // 2, 5)[number % 3]])
            line.vanish()
    await siege.no_streams("append")
    await siege.client.fill(job.name, prompts(0, 20))


async def test_streams_that_are_reset_as_soon_as_they_begin(siege: Siege) -> None:
    async with siege.held():
        for _ in range(5):
            line = await RawConnection.open(siege.address)
            await line.say(raw.PREFACE, raw.settings())
            for stream in range(1, 2001, 2):
                await line.say(raw.headers(stream, WATCH, siege.bearer), raw.reset(stream))
            line.vanish()
    await siege.no_streams("watch")


async def test_clients_that_say_nothing_are_let_go(siege: Siege) -> None:
    silent = [await RawConnection.open(siege.address) for _ in range(100)]
    for number, line in enumerate(silent):
        await line.say(raw.PREFACE[: number % len(raw.PREFACE)])
    async with siege.held():
        await asyncio.wait_for(asyncio.gather(*(line.ended() for line in silent)), 60)


async def test_one_tenant_cannot_take_all_streams(siege: Siege) -> None:
    async with GatewayClient(siege.address, siege.attacker) as attacker, siege.held():
        job = await attacker.create(siege.worker.model)
        calls = [
            attacker.jobs.WatchJob(pb.WatchJobRequest(name=job.name), metadata=attacker.metadata)
            for _ in range(STREAMS)
        ]
        for call in calls:
            await call.read()
        for method, request in (
            (attacker.jobs.WatchJob, pb.WatchJobRequest(name=job.name)),
            (attacker.jobs.ReadResults, pb.ReadResultsRequest(name=job.name)),
        ):
            with refused("RATE_EXCEEDED") as caught:
                await collect(method(request, metadata=attacker.metadata))
            assert caught.value.retry_after
            assert caught.value.metadata["limit"] == str(STREAMS)
        calls.pop().cancel()

        async def watch_again() -> bool:
            call = attacker.jobs.WatchJob(pb.WatchJobRequest(name=job.name), metadata=attacker.metadata)
            try:
                return (await call.read()).revision > 0
            except grpc.aio.AioRpcError:
                return False
            finally:
                call.cancel()

        await eventually(watch_again, bool)
        for call in calls:
            call.cancel()
    await siege.no_streams("watch")


async def test_nobody_without_a_key_can_take_all_streams(siege: Siege) -> None:
    request = health_pb2.HealthCheckRequest().SerializeToString()
    async with raw_channel(siege.address) as channel, siege.held():
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        calls = [watch(request) for _ in range(256)]
        for call in calls:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch(request).read()
        assert from_rpc_error(caught.value).reason is Reason.OVERLOADED
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(request)
        for call in calls:
            call.cancel()


async def test_an_appender_that_never_reads_its_answers(siege: Siege) -> None:
    """Each empty frame asks for an answer: the gateway must stop reading before it gathers them."""
    job = await siege.client.create(siege.worker.model)
    async with siege.held():
        call = siege.client.jobs.AppendRows(metadata=siege.client.metadata)
        await call.write(pb.AppendRowsRequest(job=job.name))
        # A refusal a frame, with 100 rows named in each, until a write waits.
        frame = pb.AppendRowsRequest(offset=0, rows=[row_pb2.Row(custom_id="x")] * 100)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000:
                await asyncio.wait_for(call.write(frame), 3)
                sent += 1
        assert sent < 100_000, "the gateway went on reading"
        call.cancel()
    await siege.no_streams("append")


@pytest.mark.parametrize(("size", "reason"), [(2 << 20, "CUSTOM_ID_INVALID"), ((9 << 19), "FRAME_TOO_LARGE")])
async def test_a_long_custom_id_is_refused_in_band(siege: Siege, size: int, reason: str) -> None:
    job = await siege.client.create(siege.worker.model)
    async with siege.held():
        stream = await siege.client.append(job.name)
        await stream.send(0, [row_pb2.Row(custom_id="x" * size, prompt="p")])
        error = await stream.error()
        assert reason in (error.reason, *(item.code for item in error.row_errors))
        assert error.ByteSize() < 2000
        await stream.send(0, prompts(0, 3))
        await stream.acked(3)


async def test_a_message_of_ten_megabytes_is_refused(siege: Siege) -> None:
    job = await siege.client.create(siege.worker.model)
    async with siege.held():
        for _ in range(20):
            stream = await siege.client.append(job.name)
            await stream.send(0, [row_pb2.Row(custom_id="x" * (10 << 20), prompt="p")])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in (caught.value.details() or "")


BAD_TEXT = b"\x0a\x04ab\xff\xfe"
"""Field 1, a string of four bytes that are no UTF-8."""


@pytest.mark.parametrize("body", [BAD_TEXT, b"\x0a", b"\xff" * 30, b"\x0b" * 1000])
async def test_bytes_that_are_no_message_are_refused_by_name(siege: Siege, body: bytes) -> None:
    metadata = (("authorization", siege.bearer),)
    async with raw_channel(siege.address) as channel:
        calls: list[Any] = [
            channel.unary_unary(GET)(body, metadata=metadata),
            channel.unary_stream(WATCH)(body, metadata=metadata).read(),
            channel.stream_stream(APPEND)(iter([body]), metadata=metadata).read(),
            channel.stream_unary("/tidemill.v1.JobService/SubmitJob")(iter([body]), metadata=metadata),
            channel.unary_unary("/grpc.health.v1.Health/Check")(body),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert from_rpc_error(caught.value).reason is Reason.INVALID_ARGUMENT


def exploding_schemas(count: int) -> list[str]:
    """Of 64 KiB each, no two alike, each worst for another step."""
    kinds = [
        lambda n: "{" + ",".join(f'"{n}{i:x}":1' for i in range(5500)) + f',"{n}157b":1}}',
        lambda n: '{"a":' * 4000 + str(n),
        lambda n: json.dumps({"enum": [f"{n}-{i}" for i in range(4900)]}),
        lambda n: json.dumps({"$defs": {f"{n}{'x' * 1000}": {"anyOf": [True] * 1900}}}),
        lambda n: json.dumps({"pattern": f"({'(a|a)*' * 5000})*{n}"}),
        lambda n: json.dumps({"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(1000)}, "title": n}),
        lambda n: json.dumps({"allOf": [{"$ref": "#/$defs/a"}] * 900, "$defs": {"a": {"allOf": [{}] * 900}}, "x": n}),
    ]
    return [kinds[number % len(kinds)](number)[: 64 << 10] for number in range(count)]


async def test_schemas_that_explode_are_refused_in_time(siege: Siege) -> None:
    job = await siege.client.create(siege.worker.model)
    rows = [
        row_pb2.Row(custom_id=f"r{n}", prompt="p", sampling=row_pb2.SamplingParams(json_schema=schema))
        for n, schema in enumerate(exploding_schemas(56))
    ]
    async with siege.held():
        started = time.monotonic()
        stream = await siege.client.append(job.name)
        await stream.send(0, rows)
        error = await stream.error()
        assert time.monotonic() - started < 15
        assert {item.code for item in error.row_errors} == {"SCHEMA_INVALID"}


async def test_giant_metadata_is_refused(siege: Siege) -> None:
    async with siege.held():
        line = await RawConnection.open(siege.address)
        await line.say(raw.PREFACE, raw.settings())
        for stream in range(1, 401, 2):
            await line.say(raw.headers(stream, GET, siege.bearer, extra=16_000))
        line.vanish()
        async with GatewayClient(siege.address, siege.attacker) as attacker:
            for size in (20_000, 100_000, 1_000_000):
                attacker.metadata = (("authorization", siege.bearer), ("x-odd", "y" * size))
                with pytest.raises(TidemillError) as caught:
                    await attacker.unary(attacker.jobs.ListJobs, pb.ListJobsRequest())
                assert caught.value.reason is Reason.OVERLOADED

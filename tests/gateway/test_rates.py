"""Rates and open streams of one tenant: the arithmetic by property, the effect on a real gateway."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.rates import BURST_SECONDS, LONGEST_WAIT_SECONDS, Bucket, RateLimits, Rates
from services.gateway.settings import GatewaySettings
from tests.gateway.client import EOF, GatewayClient, pb, prompts, refused
from tests.gateway.conftest import next_model
from tests.gateway.fake_worker import FakeWorker
from tests.gateway.waiting import eventually
from tests.system.processes import PEPPER, Stack
from tidemill.client import Client
from tidemill.errors import Reason, TidemillError
from tidemill.keys import create_key
from tidemill.store import open_store

CALLS, UPLOAD = 20, 1 << 20


class FakeClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(1, 1e6), st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1e6)), max_size=50))
def test_what_a_bucket_gives_never_exceeds_its_rate(rate: float, steps: list[tuple[float, float]]) -> None:
    clock = FakeClock()
    bucket = Bucket(rate, clock)
    given_out = 0.0
    for pause, amount in steps:
        clock.now += pause
        owed = bucket.take(amount)
        given_out += amount
        # Whoever waits as told keeps within the burst and the rate.
        clock.now += owed
        assert given_out <= rate * (clock.now + BURST_SECONDS) * (1 + 1e-9) + 1e-6


@given(st.floats(1, 1e6), st.floats(0.1, 5))
def test_an_idle_bucket_fills_and_not_beyond_its_burst(rate: float, seconds: float) -> None:
    clock = FakeClock()
    bucket = Bucket(rate, clock)
    bucket.take(rate * BURST_SECONDS)
    assert bucket.seconds_until(rate) == pytest.approx(1)
    clock.now += seconds + BURST_SECONDS
    assert bucket.take(rate * BURST_SECONDS) == pytest.approx(0)
    assert bucket.take(rate) == pytest.approx(1)


def test_tenants_do_not_share_and_a_refused_call_costs_nothing() -> None:
    clock = FakeClock()
    rates = Rates(RateLimits(calls_per_second=1), clock)
    for _ in range(2):
        rates.admit_call("a")
    for _ in range(5):
        with pytest.raises(TidemillError) as caught:
            rates.admit_call("a")
        assert caught.value.retry_after == pytest.approx(1)
    rates.admit_call("b")
    clock.now += 1
    rates.admit_call("a")


def test_streams_are_counted_back() -> None:
    rates = Rates(RateLimits(streams=2))
    with (
        rates.stream("a"),
        rates.stream("a"),
        rates.stream("b"),
        pytest.raises(TidemillError, match="2 streams open at a time"),
        rates.stream("a"),
    ):
        pass
    with rates.stream("a"), rates.stream("a"):
        pass


async def test_a_message_that_would_wait_long_is_refused_and_not_paid() -> None:
    clock = FakeClock()
    rates = Rates(RateLimits(upload_bytes_per_second=10), clock)
    too_much = int(10 * (BURST_SECONDS + LONGEST_WAIT_SECONDS)) + 1
    for _ in range(2):
        with pytest.raises(TidemillError, match="bytes a second to this gateway"):
            await rates.slow_upload("a", too_much)
    await rates.slow_upload("a", 20)


async def test_no_limit_is_no_limit() -> None:
    rates = Rates(RateLimits())
    for _ in range(10_000):
        rates.admit_call("a")
        await rates.slow_download("a", 1 << 40)
    with rates.stream("a"):
        pass


def test_a_rate_that_no_frame_passes_in_time_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1048576"):
        GatewaySettings(key_pepper="x" * 16, tenant_upload_bytes_per_second=1000)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    limits = {"CALLS_PER_SECOND": CALLS, "UPLOAD_BYTES_PER_SECOND": UPLOAD, "STREAMS": 2}
    settings = {f"TIDEMILL_GATEWAY_TENANT_{name}": str(value) for name, value in limits.items()}
    stack = Stack(tmp_path_factory.mktemp("slow"), settings=settings)
    stack.start("scheduler")
    stack.start("gateway")
    yield stack
    stack.close()


def client_of(stack: Stack, tenant: str) -> GatewayClient:
    return GatewayClient(stack.address_of("gateway"), create_key(stack.home / "keys.json", PEPPER, tenant))


async def test_too_many_calls_are_refused_by_name_and_another_tenant_s_are_not(slow: Stack) -> None:
    async with client_of(slow, "eager") as eager, client_of(slow, "calm") as calm:
        calls = [eager.unary(eager.jobs.ListJobs, pb.ListJobsRequest()) for _ in range(4 * CALLS)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, TidemillError)]
        assert {error.reason for error in refusals} == {Reason.RATE_EXCEEDED}
        assert 0 < len(refusals) < len(calls)
        assert all(0 < (error.retry_after or 0) <= 1 for error in refusals)
        await calm.unary(calm.jobs.ListJobs, pb.ListJobsRequest())


async def test_the_refusal_has_the_details_that_clients_look_for(slow: Stack) -> None:
    async with client_of(slow, "detailed") as client:
        failure = await asyncio.to_thread(call_until_refused, client)
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = {detail.TypeName().rpartition(".")[2]: detail for detail in rpc_status.from_call(failure).details}
    quota, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    assert details["QuotaFailure"].Unpack(quota)
    assert details["RetryInfo"].Unpack(retry)
    (violation,) = quota.violations
    assert (violation.subject, violation.quota_id, violation.quota_value) == (
        "tenants/detailed",
        "calls_per_second",
        CALLS,
    )
    assert retry.retry_delay.ToNanoseconds() > 0


def call_until_refused(client: GatewayClient) -> Any:
    for _ in range(10 * CALLS):
        try:
            client.blocking.ListJobs(pb.ListJobsRequest(), metadata=client.metadata, timeout=20)
        except grpc.RpcError as exc:
            return exc
    raise AssertionError("never refused")


async def test_rows_beyond_the_rate_are_slowed_and_all_there(slow: Stack, tokenizer: bytes) -> None:
    store = open_store((slow.home / "store").as_uri())
    async with (
        client_of(slow, "heavy") as client,
        FakeWorker(slow.address_of("scheduler"), store, next_model(), tokenizer) as worker,
    ):
        await worker.offer(worker.report(max_model_len=4096))
        job = await client.create(worker.model)
        rows = prompts(0, 4000, text="x" * 1000)
        size = sum(row.ByteSize() for row in rows)
        started = time.monotonic()
        await client.fill(job.name, rows, frame_rows=500)
        assert time.monotonic() - started >= size / UPLOAD - BURST_SECONDS
        assert (await client.get(job.name)).next_offset == len(rows)


async def test_one_stream_too_many_is_refused_until_another_ends(slow: Stack, tokenizer: bytes) -> None:
    store = open_store((slow.home / "store").as_uri())
    async with (
        client_of(slow, "watcher") as client,
        FakeWorker(slow.address_of("scheduler"), store, next_model(), tokenizer) as worker,
    ):
        job = await client.create(worker.model)
        watches = [client.jobs.WatchJob(pb.WatchJobRequest(name=job.name), metadata=client.metadata) for _ in range(2)]
        for watch in watches:
            assert await watch.read() is not EOF
        with refused("RATE_EXCEEDED"):
            await client.results(job.name)
        watches.pop().cancel()

        async def reading() -> str:
            try:
                await client.results(job.name)
            except TidemillError as exc:
                return exc.reason
            return "OK"

        # The gateway has to notice first.
        assert await eventually(reading, lambda outcome: outcome != Reason.RATE_EXCEEDED) == "OK"


def test_the_client_waits_as_it_is_told(slow: Stack) -> None:
    key = create_key(slow.home / "keys.json", PEPPER, "patient")
    with Client(slow.address_of("gateway"), key) as client:
        started = time.monotonic()
        calls = CALLS * 4
        for _ in range(calls):
            list(client.jobs())
        assert time.monotonic() - started >= calls / CALLS - BURST_SECONDS - 0.1

"""The asynchronous client: the same faults survived, the same refusals, and a loop that stays free."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client.fakes import JOB, FakeGateway, Fault, break_before, refuse, refuse_row
from tests.client.service import Service
from tests.client.test_append import FAULTS, check_stored, prompts
from tidemill import AsyncClient
from tidemill.client import RowsFailedError, RowsRefusedError, state_name
from tidemill.errors import ConflictError, DeadlineExceededError, NotFoundError, Reason, TidemillError
from tidemill.v1 import row_pb2


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    started = FakeGateway()
    yield started
    started.stop()


def client_of(gateway: FakeGateway, patience: float = 10) -> AsyncClient:
    return AsyncClient(gateway.address, "key", patience=patience)


def client_to(service: Service) -> AsyncClient:
    return AsyncClient(service.address, service.key, patience=30)


async def aprompts(count: int) -> AsyncIterator[row_pb2.Row]:
    for row in prompts(count):
        yield row


async def test_rows_are_framed_and_sealed(gateway: FakeGateway) -> None:
    async with client_of(gateway) as client:
        handle = await client.submit(aprompts(5000), model="m")
    assert handle.name == JOB
    check_stored(gateway, 5000)
    assert (gateway.frames, gateway.largest_frame, gateway.streams) == (5, 1024, 1)
    assert len({item["traceparent"] for item in gateway.metadata}) == 1


@pytest.mark.parametrize("name", list(FAULTS))
@pytest.mark.parametrize("frame", [0, 2, 4])
async def test_a_fault_is_survived(gateway: FakeGateway, name: str, frame: int) -> None:
    gateway.faults[frame] = FAULTS[name]()
    async with client_of(gateway) as client:
        await client.submit(prompts(5000), model="m")
    check_stored(gateway, 5000)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.integers(0, 12), st.sampled_from(sorted(FAULTS)), max_size=4))
def test_any_few_faults_are_survived(plan: dict[int, str]) -> None:
    gateway = FakeGateway(faults={frame: FAULTS[name]() for frame, name in plan.items()})

    async def submit() -> None:
        async with client_of(gateway) as client:
            await client.submit(aprompts(4200), model="m")

    try:
        asyncio.run(submit())
        check_stored(gateway, 4200)
    finally:
        gateway.stop()


async def test_a_bad_row_is_named_and_what_was_acknowledged_stays(gateway: FakeGateway) -> None:
    gateway.faults[2] = refuse_row(7)
    async with client_of(gateway) as client:
        with pytest.raises(RowsRefusedError, match="r2055") as caught:
            await client.submit(prompts(5000), model="m")
    assert caught.value.row_errors[0].index == 2048 + 7
    assert JOB in caught.value.__notes__[0]
    assert len(gateway.rows) == 2048
    assert gateway.sealed is None


async def test_rows_that_are_stored_are_compared_and_the_rest_appended(gateway: FakeGateway) -> None:
    gateway.rows.extend(prompts(1500))
    async with client_of(gateway) as client:
        await client.submit(aprompts(4000), model="m", request_id="again")
    check_stored(gateway, 4000)


async def test_other_content_at_a_stored_offset_is_refused(gateway: FakeGateway) -> None:
    gateway.rows.extend(prompts(10))
    async with client_of(gateway) as client:
        with pytest.raises(ConflictError) as caught:
            await client.submit(prompts(20, size=4), model="m")
    assert caught.value.reason is Reason.ROW_CONTENT_MISMATCH


@pytest.mark.parametrize(
    ("fault", "reason"), [(break_before(), Reason.UNAVAILABLE), (refuse(Reason.OFFSET_GAP), Reason.OFFSET_GAP)]
)
async def test_a_fault_that_never_ends_is_reported(gateway: FakeGateway, fault: Fault, reason: Reason) -> None:
    gateway.faults = dict.fromkeys(range(1000), fault)
    async with client_of(gateway, patience=1) as client:
        with pytest.raises(TidemillError) as caught:
            await client.submit(prompts(10), model="m")
    assert caught.value.reason is reason


async def test_a_cancelled_submission_leaves_nothing_behind(gateway: FakeGateway) -> None:
    started = asyncio.Event()

    async def rows() -> AsyncIterator[str]:
        yield "a"
        started.set()
        await asyncio.Event().wait()

    async with client_of(gateway) as client:
        task = asyncio.create_task(client.submit(rows(), model="m"))
        await asyncio.wait_for(started.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert {item.get_name() for item in asyncio.all_tasks()} & {"tidemill-acks"} == set()
    assert gateway.sealed is None
    gc.collect()


async def test_a_gateway_that_stops_acknowledging_stops_the_source(gateway: FakeGateway) -> None:
    release, pulled = threading.Event(), 0

    def wait_for_release(gateway: FakeGateway, frame: Any, context: Any) -> Iterator[Any]:
        release.wait(30)
        yield from gateway.take(frame)

    async def rows() -> AsyncIterator[row_pb2.Row]:
        nonlocal pulled
        for row in prompts(60_000):
            pulled += 1
            yield row

    gateway.faults[0] = Fault(wait_for_release)
    async with client_of(gateway) as client:
        task = asyncio.create_task(client.submit(rows(), model="m"))
        done, _ = await asyncio.wait([task], timeout=1)
        assert not done
        assert pulled <= 34 * 1024
        release.set()
        await asyncio.wait_for(task, 60)
    check_stored(gateway, 60_000)


async def test_watching_and_reading_survive_restarts(gateway: FakeGateway) -> None:
    gateway.watch_failures = gateway.result_failures = 3
    async with client_of(gateway) as client:
        handle = await client.submit(prompts(20), model="m")
        assert [job.revision async for job in handle.watch()] == [1, 2, 3, 4]
        assert [result.row_index async for result in handle.results()] == list(range(20))


async def test_waiting_ends_at_its_timeout(gateway: FakeGateway) -> None:
    gateway.never_finishes = True
    async with client_of(gateway) as client:
        handle = await client.submit(["a"], model="m")
        with pytest.raises(DeadlineExceededError):
            await handle.wait(timeout=0.3)


async def test_a_service_that_is_not_there_is_reported() -> None:
    async with AsyncClient("127.0.0.1:1", "key", patience=0.3) as client:
        with pytest.raises(TidemillError, match="tidemill up") as caught:
            await client.models()
    assert caught.value.reason is Reason.UNAVAILABLE


def test_it_may_be_made_where_no_loop_runs(gateway: FakeGateway) -> None:
    client = client_of(gateway)

    async def use() -> int:
        async with client:
            return len([result async for result in (await client.submit(["a"], model="m")).results()])

    assert asyncio.run(use()) == 1
    asyncio.run(AsyncClient("127.0.0.1:1", "key").close())


async def test_the_whole_way_with_the_real_service(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"prompt": "say {index}"}}\n' for index in range(1500)))
    async with client_to(service) as client:
        job = await client.submit(path, model=service.model, deadline="2h", labels={"a": "b"})
        last = await job.wait(timeout=60)
        assert (state_name(last), last.row_counts.succeeded, dict(last.labels)) == ("SUCCEEDED", 1500, {"a": "b"})
        assert [item.row_index async for item in job.results(start=1490)] == list(range(1490, 1500))
        table = await job.to_arrow()
        assert table.column("text")[1499].as_py() == "answer to row-1500"
        assert len(await job.to_pandas()) == 1500
        assert job.name in [item.name async for item in client.jobs(page_size=5)]
        assert (await client.job(job.name).get()).name == job.name
        assert f"models/{service.model}" in [model.name for model in await client.models()]
        assert "10 rows" in (await client.estimate(10, model=service.model)).basis
        with pytest.raises(NotFoundError):
            await client.job(job.name[:-4] + "0000").get()
        with pytest.raises(TidemillError, match="full name"):
            client.job("01ARZ3NDEKTSV4RRFFQ69G5FAV")


async def test_the_verbs(service: Service) -> None:
    async with client_to(service) as client:
        job = await client.submit(["a"], model=await asyncio.to_thread(service.idle_model))
        assert state_name(await job.pause()) == "PAUSED"
        assert (await job.explain()).remedies
        assert state_name(await job.resume()) == "QUEUED"
        assert (await job.update(deadline="3h")).name == job.name
        assert "1 row" in (await job.estimate()).basis
        await job.cancel()
        assert state_name(await job.wait(timeout=30)) == "CANCELLED"
        assert await job.delete()


async def test_one_call_answers_and_names_what_failed(service: Service) -> None:
    rows = [{"prompt": "x", "custom_id": name} for name in ("good-1", "fail-1", "good-2")]
    async with client_to(service) as client:
        good = await client.run(pa.table({"embed": ["four"], "dimensions": [2]}), model=service.model)
        assert list(good[0].embedding) == [4.0, 0.5]
        with pytest.raises(RowsFailedError, match=r"1 of 3 rows .*fail-1"):
            await client.run(rows, model=service.model)
        results = await client.run(rows, model=service.model, on_failure="return")
        assert [bool(result.error_code) for result in results] == [False, True, False]
        job = await client.submit(rows, model=service.model)
        await job.wait(timeout=30)
        assert [item.custom_id async for item in (await job.retry_failed_rows()).results()] == ["fail-1"]

"""What append streams may take: memory, streams a tenant, time without a word."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.gateway.append_limits import MemoryBudget, StreamLimit
from services.gateway.patience import read_in_time, timely
from tests.gateway.client import refused
from tidemill.errors import Reason, TidemillError


async def endless() -> AsyncIterator[int]:
    await asyncio.Event().wait()
    yield 0


async def test_a_frame_waits_for_room_and_is_let_in_when_rows_become_durable() -> None:
    budget = MemoryBudget(100)
    await budget.take(60)
    waiting = asyncio.create_task(budget.take(50))
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.give(60)
    await waiting
    assert budget.used == 50


async def test_a_frame_larger_than_all_room_is_let_in_alone() -> None:
    budget = MemoryBudget(100)
    await budget.take(500)
    assert budget.used == 500


async def test_load_is_shed_with_the_time_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.append_limits._WAIT_SECONDS", 0.01)
    budget = MemoryBudget(100)
    await budget.take(90)
    with pytest.raises(TidemillError) as caught:
        await budget.take(20)
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after
    assert caught.value.metadata == {"waiting": "90", "limit": "100"}
    assert budget.used == 90


def test_a_tenant_has_so_many_streams_and_another_its_own() -> None:
    streams = StreamLimit(2)
    streams.enter("a")
    streams.enter("a")
    streams.enter("b")
    with refused("OVERLOADED"):
        streams.enter("a")
    streams.leave("a")
    streams.enter("a")


async def test_a_client_that_sends_nothing_is_timed_out() -> None:
    with refused("DEADLINE_EXCEEDED"):
        await anext(timely(endless(), 0.01))


async def test_messages_in_time_all_pass() -> None:
    async def three() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    assert [item async for item in timely(three(), 10)] == [0, 1, 2]


async def test_a_call_whose_client_reads_nothing_is_cancelled() -> None:
    async def answers() -> AsyncIterator[int]:
        yield 1

    async def handler() -> None:
        async for _ in read_in_time(answers(), 0.01):
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(handler())

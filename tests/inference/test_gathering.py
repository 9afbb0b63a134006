"""Outcomes of tasks, handed on as they end."""

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.gathering import Gathering


async def gather(*work: object, seconds: float = 5.0) -> list[int]:
    async with asyncio.timeout(20), aclosing(Gathering(work).batches(seconds)) as batches:  # type: ignore[arg-type]
        return [outcome async for batch in batches for outcome in batch]


@given(st.lists(st.one_of(st.none(), st.integers()), max_size=30))
def test_each_outcome_comes_once_and_none_leaves_nothing(values: list[int | None]) -> None:
    async def after(turns: int, value: int | None) -> int | None:
        for _ in range(turns % 4):
            await asyncio.sleep(0)
        return value

    got = asyncio.run(gather(*(after(turns, value) for turns, value in enumerate(values))))
    assert sorted(got) == sorted(value for value in values if value is not None)


async def test_a_fault_comes_behind_what_had_ended_and_ends_the_others() -> None:
    ended = asyncio.Event()

    async def value() -> int:
        return 1

    async def fails() -> int:
        raise OSError("no")

    async def waits() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 2

    seen: list[int] = []

    async def collect() -> None:
        async for batch in Gathering([value(), fails(), waits()]).batches(5.0):
            seen.extend(batch)

    with pytest.raises(OSError, match="no"):
        await asyncio.wait_for(collect(), 20)
    assert seen == [1]
    async with asyncio.timeout(20):
        await ended.wait()


async def test_what_ended_does_not_wait_for_the_rest() -> None:
    async def value() -> int:
        return 1

    async def waits() -> int:
        return await asyncio.get_running_loop().create_future()

    async with asyncio.timeout(20), aclosing(Gathering([value(), waits()]).batches(0.01)) as batches:
        assert await anext(batches) == [1]


async def test_nothing_to_do_is_over_at_once() -> None:
    assert await gather() == []

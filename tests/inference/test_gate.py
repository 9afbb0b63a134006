"""The gate: side by side or alone, first come first served, whoever is cancelled."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.gate import Gate

# Each visitor: alone or not, turns of the loop inside, and the turn after which it is cancelled.
VISITORS = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.none() | st.integers(0, 12)), max_size=14)


@dataclass
class Watch:
    """Who is inside, checked at every step."""

    alone: int = 0
    together: int = 0
    admitted: list[int] = field(default_factory=list[int])

    def check(self) -> None:
        assert self.alone in (0, 1)
        assert not (self.alone and self.together), "somebody is beside one that is alone"


async def visit(gate: Gate, watch: Watch, number: int, alone: bool, turns: int) -> None:
    async with gate.enter(alone=alone):
        watch.admitted.append(number)
        watch.alone += alone
        watch.together += not alone
        try:
            for _ in range(turns):
                watch.check()
                await asyncio.sleep(0)
        finally:
            watch.alone -= alone
            watch.together -= not alone


async def scenario(visitors: list[tuple[bool, int, int | None]]) -> Watch:
    gate, watch = Gate(), Watch()
    tasks = [
        asyncio.create_task(visit(gate, watch, number, alone, turns))
        for number, (alone, turns, _) in enumerate(visitors)
    ]
    for turn in range(13):
        for task, (_, _, cancelled_at) in zip(tasks, visitors, strict=True):
            if cancelled_at == turn:
                task.cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (gate.inside, gate.waiting) == (0, 0), "everybody is out again"
    return watch


@settings(deadline=None)
@given(VISITORS)
def test_alone_is_alone_in_order_and_nobody_is_left_waiting(visitors: list[tuple[bool, int, int | None]]) -> None:
    watch = asyncio.run(scenario(visitors))
    assert watch.admitted == sorted(watch.admitted), "first come, first served"
    steadfast = [number for number, (_, _, cancelled_at) in enumerate(visitors) if cancelled_at is None]
    assert set(steadfast) <= set(watch.admitted)


async def test_one_that_is_alone_waits_for_those_inside_and_holds_others_back() -> None:
    gate, release = Gate(), asyncio.Event()
    order: list[str] = []

    async def come(name: str, alone: bool) -> None:
        async with gate.enter(alone=alone):
            order.append(name)
            await release.wait()
            release.clear()

    tasks = [asyncio.create_task(come(*who)) for who in (("first", False), ("suspect", True), ("late", False))]
    await settled()
    assert (order, gate.inside, gate.waiting) == (["first"], 1, 2)
    for expected in (["first", "suspect"], ["first", "suspect", "late"]):
        release.set()
        await settled()
        assert order == expected
    release.set()
    await asyncio.gather(*tasks)


async def test_a_cancelled_suspect_lets_the_others_by() -> None:
    gate = Gate()
    async with gate.enter(alone=False):
        suspect = asyncio.create_task(gate.enter(alone=True).__aenter__())
        await settled()
        other = asyncio.create_task(gate.enter(alone=False).__aenter__())
        await settled()
        assert gate.waiting == 2
        suspect.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await suspect
        await asyncio.wait_for(other, 5)


async def test_an_error_inside_opens_the_gate() -> None:
    gate = Gate()
    with pytest.raises(ValueError, match="poison"):
        async with gate.enter(alone=True):
            raise ValueError("poison")
    async with asyncio.timeout(5), gate.enter(alone=True):
        assert gate.inside == 1


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)

"""What an actor hands on of its rows, without an engine."""

import asyncio

import pytest

from services.inference.actor import EngineActor, EngineLostError, Prompt
from services.inference.engine_config import Answer, Call, EngineConfig, EngineRow, Outcome
from services.inference.sampling import RowRefusedError
from tidemill.encoding import Request
from tidemill.errors import RowCode

CONFIG = EngineConfig("m", "/nowhere", "cpu", 512, "auto", 0, 4, 16)
ANSWER = Answer("text", "stop", 1, 1, 0, None, None, None)
REQUEST = Request(task="prompt", prompt="p", messages=(), sampling={})


class FakeActor(EngineActor):
    """An actor whose rows end as their index says."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.cancelled: list[int] = []

    def _prompts(self, rows: list[EngineRow]) -> list[Prompt]:
        return [[0] for _ in rows]

    async def _answer(self, call: Call, row: EngineRow, tokens: list[int]) -> Answer | None:
        if row.row_index >= 900:
            raise EngineLostError("the engine of m died: signal 9")
        if row.row_index >= 800:
            raise RowRefusedError(RowCode.ENGINE_REFUSED, "no")
        if row.row_index >= 700:
            return None
        if row.row_index >= 600:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.append(row.row_index)
        return ANSWER


async def ended(actor: FakeActor, *indices: int) -> tuple[list[int], str]:
    """Rows that had an outcome, and the fault behind them."""
    seen: list[Outcome] = []
    try:
        async for outcomes in actor.generate(Call("g"), [EngineRow(index, REQUEST) for index in indices]):
            seen += outcomes
    except EngineLostError as exc:
        return sorted(item.row_index for item in seen), str(exc)
    return sorted(item.row_index for item in seen), ""


async def test_each_row_has_one_outcome_but_aborted_ones() -> None:
    assert await ended(FakeActor(), 1, 2, 700, 801) == ([1, 2, 801], "")


async def test_finished_rows_come_before_the_news_of_a_death() -> None:
    actor = FakeActor()
    rows, fault = await ended(actor, 1, 2, 600, 801, 900)
    assert rows == [1, 2, 801]
    assert "signal 9" in fault
    await asyncio.sleep(0)
    assert actor.cancelled == [600]


async def test_rows_that_are_done_leave_while_others_run() -> None:
    actor = FakeActor()
    stream = actor.generate(Call("g"), [EngineRow(1, REQUEST), EngineRow(600, REQUEST)])
    async with asyncio.timeout(20):
        first = await anext(stream)
    assert [item.row_index for item in first] == [1]
    closing = getattr(stream, "aclose")  # noqa: B009 - the protocol of iterators does not name it
    await closing()
    await asyncio.sleep(0)
    assert actor.cancelled == [600]


def test_the_fault_travels() -> None:
    import pickle

    with pytest.raises(EngineLostError, match="died"):
        raise pickle.loads(pickle.dumps(EngineLostError("died")))  # noqa: S301

"""A Ray cluster that is gone is noticed in time."""

import asyncio
import threading

import pytest

from services.inference import raywatch
from services.inference.raywatch import RayLostError, answers_in_time, watch_ray


async def test_an_answer_in_time_is_passed_on() -> None:
    assert await answers_in_time(lambda: True, 20) is True
    assert await answers_in_time(lambda: False, 20) is False


async def test_silence_and_errors_are_reasons() -> None:
    never = threading.Event()
    assert await answers_in_time(never.wait, 0.05) == "its head does not answer within 0.05 s"
    never.set()

    def fail() -> bool:
        raise ConnectionError("refused")

    assert await answers_in_time(fail, 20) == "ConnectionError: refused"


async def test_a_node_that_its_head_forgets_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, True, False])
    monkeypatch.setattr(raywatch, "is_known", lambda _node: next(answers))
    with pytest.raises(RayLostError, match="does not know this node"):
        async with asyncio.timeout(20):
            await watch_ray("node", 0.001, 20)
    assert next(answers, None) is None

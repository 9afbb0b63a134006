"""What a worker knows of its scheduler."""

from typing import Any

import pytest

from services.inference import link
from services.inference.link import SchedulerLink
from tidemill import channel
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2 as pb


async def test_an_answer_counts_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now, refusal = [1000.0], list[Reason]()

    async def call(*_of: Any) -> pb.ExtendLeasesResponse:
        if refusal:
            raise TidemillError(refusal[0], "no")
        return pb.ExtendLeasesResponse()

    async def extend() -> bool:
        try:
            await found.extend([], [])
        except TidemillError:
            assert refusal
        return found.answered

    monkeypatch.setattr(channel, "call", call)
    monkeypatch.setattr(link.time, "monotonic", lambda: now[0])
    found = SchedulerLink("127.0.0.1:1", "w")
    assert not found.answered
    assert await extend()
    now[0] += 29
    assert found.answered
    now[0] += 2
    assert not found.answered, "a worker that is stuck calls nobody"
    assert await extend()
    refusal.append(Reason.INVALID_ARGUMENT)
    assert await extend(), "a refusal is an answer"
    now[0] += 31
    assert not await extend(), "but not for ever"
    refusal.clear()
    assert await extend()
    refusal.append(Reason.UNAVAILABLE)
    assert not await extend()
    await found.close()

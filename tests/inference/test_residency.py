"""Who makes room for whom."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.models import ModelUnusableError
from services.inference.residency import Wishes, to_evict
from services.inference.resident import Engine, ModelSlot
from tidemill.v1 import model_service_pb2

State = model_service_pb2.ModelState
NAMES = ("a", "b", "c", "d")
FILES: Any = Path()


def slot(*, users: int = 0, waiting: int = 0, last_used: float = 0.0) -> ModelSlot:
    engine = Engine(None, "engine", FILES, "build", users=users, last_used=last_used)
    return ModelSlot(state=State.MODEL_STATE_LOADED, engines=[engine], waiting=waiting)


RESIDENT = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(st.integers(0, 1), st.integers(0, 1), st.floats(0, 100)), max_size=4
)


@settings(deadline=None)
@given(RESIDENT, st.sets(st.sampled_from(NAMES)))
def test_the_least_recently_used_idle_unpinned_engine_goes(
    resident: dict[str, tuple[int, int, float]], pinned: set[str]
) -> None:
    slots = {name: ModelSlot() for name in NAMES}
    for name, (users, waiting, used) in resident.items():
        slots[name] = slot(users=users, waiting=waiting, last_used=used)
    movable = {name: item for name, item in resident.items() if name not in pinned}
    idle = {name: used for name, (users, waiting, used) in movable.items() if not users and not waiting}
    if not movable:
        with pytest.raises(ModelUnusableError):
            to_evict(slots, Wishes.of(pinned, []))
        return
    evicted = to_evict(slots, Wishes.of(pinned, []))
    if not idle:
        assert evicted is None
        return
    assert evicted
    model, engine = evicted
    assert engine is slots[model].engines[0]
    assert idle[model] == min(idle.values())


async def test_an_engine_that_is_being_ended_is_not_waited_for() -> None:
    slots = {"a": slot(last_used=1), "b": slot(last_used=2)}
    async with slots["a"].lock:
        assert to_evict(slots, Wishes()) == ("b", slots["b"].engines[0])
        async with slots["b"].lock:
            assert to_evict(slots, Wishes()) is None


def test_pins_are_loaded_once_and_drains_are_stronger() -> None:
    slots = {"a": ModelSlot(), "b": ModelSlot(state=State.MODEL_STATE_FAILED), "c": slot(), "d": ModelSlot()}
    wishes = Wishes.of(["a", "b", "c", "d", "elsewhere"], ["d"])
    assert wishes.to_load(slots) == ["a"]
    assert wishes.to_unload(slots) == []


async def test_a_drained_model_with_a_chunk_at_its_gate_stays() -> None:
    slots = {"a": slot(), "b": slot(users=1)}
    wishes = Wishes.of([], ["a", "b", "elsewhere"])
    assert wishes.to_unload(slots) == ["a"]
    async with contextlib.AsyncExitStack() as inside:
        await inside.enter_async_context(slots["a"].gate.enter(alone=True))
        waiting = asyncio.create_task(slots["a"].gate.enter(alone=False).__aenter__())
        await asyncio.sleep(0)
        assert wishes.to_unload(slots) == []
    await waiting
    assert wishes.to_unload(slots) == [], "the one that waited is inside now"

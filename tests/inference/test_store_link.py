"""Waiting for an object store that is away."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.inference.link import LeaseVoidError
from services.inference.store_link import StoreLink
from tests.stores import folder_store
from tidemill.errors import Reason, TidemillError
from tidemill.store.local import LocalStore

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return folder_store(tmp_path / "store")


@pytest.fixture
def void() -> asyncio.Event:
    return asyncio.Event()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - threads make it true
            await asyncio.sleep(0.01)


async def test_work_waits_until_the_store_is_back(store: LocalStore, tmp_path: Path, void: asyncio.Event) -> None:
    link, aside = StoreLink(store), tmp_path / "aside"
    store.root.rename(aside)
    writing = asyncio.create_task(link.call(lambda: store.put("a", b"data"), void))
    await until(lambda: link.away)
    leasing = asyncio.create_task(link.here())
    await asyncio.sleep(0.7)
    assert (link.away, leasing.done(), writing.done()) == (True, False, False)
    aside.rename(store.root)
    assert (await asyncio.wait_for(writing, 10)).key == "a"
    await asyncio.wait_for(leasing, 10)
    assert store.get("a") == b"data"


async def test_a_void_lease_waits_no_longer(store: LocalStore, tmp_path: Path, void: asyncio.Event) -> None:
    link = StoreLink(store)
    store.root.rename(tmp_path / "aside")
    writing = asyncio.create_task(link.call(lambda: store.put("a", b"data"), void))
    await until(lambda: link.away)
    void.set()
    with pytest.raises(LeaseVoidError):
        await asyncio.wait_for(writing, 10)
    assert not link.away, "nothing waits"


async def test_a_store_that_does_not_answer_is_away(store: LocalStore, void: asyncio.Event) -> None:
    link, answers, calls = StoreLink(store), threading.Event(), list[int]()

    def hang() -> str:
        calls.append(1)
        assert answers.wait(30)
        return "done"

    working = asyncio.create_task(link.call(hang, void, silent_seconds=0.05))
    await until(lambda: link.away)
    answers.set()
    assert await asyncio.wait_for(working, 10) == "done"
    assert (link.away, calls) == (False, [1]), "it is not begun again beside a call that hangs"


@pytest.mark.parametrize("silent_seconds", [0.05, None])
async def test_a_void_lease_does_not_wait_for_a_call_that_hangs(
    store: LocalStore, void: asyncio.Event, silent_seconds: float | None
) -> None:
    link, answers, begun = StoreLink(store), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        answers.wait(30)
        raise TidemillError(Reason.STORE_FAILED, "nobody hears this")

    working = asyncio.create_task(link.call(hang, void, silent_seconds=silent_seconds))
    await until(lambda: begun.is_set() and (link.away or silent_seconds is None))
    void.set()
    with pytest.raises(LeaseVoidError):
        await asyncio.wait_for(working, 10)
    await asyncio.wait_for(link.here(), 10)
    answers.set()


async def test_after_a_hung_call_the_store_is_away_until_it_was_written_to(
    store: LocalStore, tmp_path: Path, void: asyncio.Event
) -> None:
    link, answers, aside = StoreLink(store), threading.Event(), tmp_path / "aside"
    working = asyncio.create_task(link.call(lambda: answers.wait(30), void, silent_seconds=0.05))
    await until(lambda: link.away)
    store.root.rename(aside)
    void.set()
    with pytest.raises(LeaseVoidError):
        await asyncio.wait_for(working, 10)
    assert link.away, "no lease is taken that would hang as well"
    aside.rename(store.root)
    await asyncio.wait_for(link.here(), 10)
    answers.set()


async def test_many_calls_that_hang_take_no_thread_from_others(store: LocalStore, void: asyncio.Event) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    link, answers = StoreLink(store), threading.Event()
    working = [asyncio.create_task(link.call(lambda: answers.wait(30), void, silent_seconds=0.05)) for _ in range(40)]
    await until(lambda: link.away)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 10) == "free"
    answers.set()
    assert await asyncio.wait_for(asyncio.gather(*working), 20) == [True] * 40
    assert not link.away


async def test_who_waits_is_told_why(store: LocalStore, tmp_path: Path, void: asyncio.Event) -> None:
    link, aside, told = StoreLink(store), tmp_path / "aside", list[str]()
    store.root.rename(aside)
    writing = asyncio.create_task(
        link.call(lambda: store.put("a", b"data"), void, waits=lambda error: told.append(error.message))
    )
    await until(lambda: bool(told))
    aside.rename(store.root)
    await asyncio.wait_for(writing, 10)
    assert len(told) == 1
    assert "the object store is away" in told[0]


async def test_other_faults_are_raised_at_once(store: LocalStore, void: asyncio.Event) -> None:
    with pytest.raises(TidemillError) as caught:
        await StoreLink(store).call(lambda: store.get("missing"), void)
    assert caught.value.reason is Reason.DATA_CORRUPT


async def test_a_lost_store_is_away_until_it_can_be_written_to(store: LocalStore, tmp_path: Path) -> None:
    link, aside = StoreLink(store), tmp_path / "aside"
    store.root.rename(aside)
    for _ in range(2):
        link.lost(TidemillError(Reason.STORE_FAILED, "no route to host"))
    assert link.away
    leasing = asyncio.create_task(link.here())
    await asyncio.sleep(0.5)
    assert not leasing.done()
    aside.rename(store.root)
    await asyncio.wait_for(leasing, 10)
    assert not link.away


async def test_a_probe_that_fails_in_any_way_is_repeated(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[Exception] = [OSError("no route to host"), TidemillError(Reason.STORE_FAILED, "away")]

    def probe() -> None:
        if faults:
            raise faults.pop(0)

    link = StoreLink(store)
    monkeypatch.setattr(store, "probe", probe)
    link.lost(TidemillError(Reason.STORE_FAILED, "away"))
    async with asyncio.timeout(20):
        await link.here()
    assert not faults

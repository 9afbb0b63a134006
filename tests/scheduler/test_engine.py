"""The engine: commands share an append, nobody sees what is not durable, and a failed append loses nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from services.scheduler.clock import Clock
from services.scheduler.core import jobs
from services.scheduler.core.checks import find_job
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from services.scheduler.engine import MAX_GROUP, Engine, Events, Turn
from services.scheduler.ledger import MemoryLedger
from services.scheduler.ledger.base import replay
from tests.scheduler import builders, recount
from tests.scheduler.fake_clock import FakeClock
from tests.scheduler.fake_ledger import FakeLedger, write_failed
from tidemill.errors import Reason, TidemillError


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
async def engine(ledger: FakeLedger) -> AsyncIterator[Engine]:
    engine = Engine(ledger, Clock(), "test")
    await engine.start()
    yield engine
    ledger.gate.set()
    await engine.close()


NOW_NS = (builders.DEADLINE - 3600) * SECOND


def create(number: int) -> Callable[[Turn], str]:
    def step(turn: Turn) -> str:
        turn.record(jobs.create_job(turn.state, builders.spec(number), NOW_NS))
        return builders.job_name(number)

    return step


def known_jobs(turn: Turn) -> set[str]:
    return set(turn.state.jobs)


async def held_append(engine: Engine, ledger: FakeLedger, number: int) -> "asyncio.Task[str]":
    """A command whose append has begun and waits at the gate."""
    ledger.gate.clear()
    ledger.entered.clear()
    task = asyncio.create_task(engine.execute(create(number)))
    assert await asyncio.to_thread(ledger.entered.wait, 10)
    return task


async def test_commands_of_many_callers_share_one_append(engine: Engine, ledger: FakeLedger):
    first = await held_append(engine, ledger, 1)
    others = [asyncio.create_task(engine.execute(create(number))) for number in range(2, 102)]
    await asyncio.sleep(0)
    ledger.gate.set()
    names = await asyncio.gather(first, *others)
    assert ledger.appends == [1, 100]
    assert set(names) == await engine.execute(known_jobs)
    assert [event.sequence for event in replay(ledger)] == list(range(1, 102))


async def test_a_group_is_bounded(engine: Engine, ledger: FakeLedger):
    first = await held_append(engine, ledger, 1)
    others = [asyncio.create_task(engine.execute(create(number))) for number in range(2, MAX_GROUP + 12)]
    await asyncio.sleep(0)
    ledger.gate.set()
    await asyncio.gather(first, *others)
    assert ledger.appends == [1, MAX_GROUP, 10]


async def test_reads_wait_for_what_they_would_show(engine: Engine, ledger: FakeLedger):
    write = await held_append(engine, ledger, 1)
    read = asyncio.create_task(engine.execute(known_jobs))
    done, _ = await asyncio.wait({write, read}, timeout=0.05)
    assert not done
    ledger.gate.set()
    assert await read == {await write}


async def test_reads_append_nothing(engine: Engine, ledger: FakeLedger):
    assert await engine.execute(known_jobs) == set()
    assert ledger.appends == []


async def test_a_refusal_concerns_its_caller_only(engine: Engine, ledger: FakeLedger):
    first = await held_append(engine, ledger, 1)
    refused = asyncio.create_task(engine.execute(lambda turn: find_job(turn.state, builders.job_name(77))))
    accepted = asyncio.create_task(engine.execute(create(2)))
    await asyncio.sleep(0)
    ledger.gate.set()
    await first
    assert await accepted == builders.job_name(2)
    with pytest.raises(TidemillError) as caught:
        await refused
    assert caught.value.reason is Reason.JOB_NOT_FOUND


async def test_a_failed_append_is_answered_unavailable_and_leaves_no_trace(engine: Engine, ledger: FakeLedger):
    await engine.execute(create(1))
    ledger.fail_before = write_failed()
    with pytest.raises(TidemillError) as caught:
        await engine.execute(create(2))
    assert caught.value.reason is Reason.LEDGER_WRITE_FAILED
    assert set(engine.state.jobs) == {builders.job_name(1)}
    assert engine.failure is None
    assert await engine.execute(known_jobs) == {builders.job_name(1)}
    await engine.execute(create(2))
    recount.check(engine.state)


async def test_a_lost_reply_does_not_double_events(engine: Engine, ledger: FakeLedger):
    ledger.fail_after = write_failed()
    with pytest.raises(TidemillError):
        await engine.execute(create(1))
    assert await engine.execute(known_jobs) == {builders.job_name(1)}
    await engine.execute(create(1))
    assert len(list(replay(ledger))) == 1


async def test_acknowledged_commands_survive_every_failure(engine: Engine, ledger: FakeLedger):
    acknowledged: set[str] = set()
    for number in range(1, 60):
        if number % 3 == 0:
            ledger.fail_before = write_failed()
        if number % 5 == 0:
            ledger.fail_after = write_failed()
        with suppress(TidemillError):
            acknowledged.add(await engine.execute(create(number)))
    assert len(acknowledged) >= 25
    assert acknowledged <= await engine.execute(known_jobs)
    heir = Engine(ledger.inner, Clock(), "heir")
    await heir.start()
    assert acknowledged <= await heir.execute(known_jobs)
    await heir.close()


async def test_an_unreadable_ledger_is_tried_again(engine: Engine, ledger: FakeLedger):
    await engine.execute(create(1))
    ledger.fail_before = ledger.fail_reads = write_failed()
    with pytest.raises(TidemillError):
        await engine.execute(create(2))
    assert engine.peek() is None
    assert engine.failure is not None
    with pytest.raises(TidemillError):
        await engine.execute(known_jobs)
    ledger.fail_reads = None
    assert await engine.execute(known_jobs) == {builders.job_name(1)}
    assert engine.failure is None


async def test_a_fenced_engine_stops_for_good():
    ledger = MemoryLedger()
    engine = Engine(ledger, Clock(), "old")
    await engine.start()
    await engine.execute(create(1))
    ledger.open("heir")
    for _ in range(2):
        with pytest.raises(TidemillError) as caught:
            await engine.execute(create(2))
        assert caught.value.reason is Reason.LEDGER_FENCED
    assert engine.stopped.is_set()
    with pytest.raises(TidemillError):
        await engine.execute(known_jobs)
    await engine.close()


async def test_a_broken_command_does_not_break_the_others(engine: Engine):
    def broken(turn: Turn) -> None:
        create(5)(turn)
        raise KeyError("bug")

    with pytest.raises(TidemillError) as caught:
        await engine.execute(broken)
    assert caught.value.reason is Reason.INTERNAL
    assert await engine.execute(known_jobs) == set()


async def test_a_caller_that_left_changes_nothing(engine: Engine, ledger: FakeLedger):
    first = await held_append(engine, ledger, 1)
    left = asyncio.create_task(engine.execute(create(2)))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    ledger.gate.set()
    await first
    assert await engine.execute(known_jobs) == {builders.job_name(1)}


async def test_time_never_runs_backwards_in_the_ledger(ledger: FakeLedger):
    times = [(5_000, 0.0), (3_000, 0.0), (4_000, 1e-6), (9_000, 2e-6)]
    engine = Engine(ledger, Clock(lambda: times[0][0], lambda: times[0][1]), "test")
    await engine.start()
    for number in range(1, 5):
        await engine.execute(create(number))
        times.append(times.pop(0))
    # Set back, the ledger's time goes on at the pace of the other clock.
    assert [event.time.nanos for event in replay(ledger)] == [5_000, 5_000, 6_000, 9_000]
    await engine.close()


async def test_a_closed_engine_answers(ledger: FakeLedger):
    engine = Engine(ledger, Clock(), "test")
    await engine.start()
    task = await held_append(engine, ledger, 1)
    waiting = asyncio.create_task(engine.execute(create(2)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    ledger.gate.set()
    await closing
    for reply in (task, waiting):
        with pytest.raises(TidemillError) as caught:
            await reply
        assert caught.value.reason is Reason.UNAVAILABLE
    with pytest.raises(TidemillError):
        await engine.execute(create(3))


async def test_a_full_ledger_is_left_alone_until_a_probe_passes(ledger: FakeLedger):
    clock, rebuilds = FakeClock(), 0

    def count(_state: State, events: Events) -> None:
        nonlocal rebuilds
        rebuilds += not events

    engine = Engine(ledger, clock.clock(), "test", count)
    await engine.start()
    await engine.execute(create(1))
    ledger.fail_before = ledger.fail_probes = TidemillError(Reason.LEDGER_FULL, "no room", retry_after=5.0)
    for seconds in (0, 0.1, 2, 2):
        clock.advance(seconds)
        with pytest.raises(TidemillError, match="no room"):
            await engine.execute(create(2))
        assert await engine.execute(known_jobs) == {builders.job_name(1)}
        assert await engine.execute(create(1)) == builders.job_name(1)
    assert ledger.appends == [1, 1]
    assert rebuilds == 2
    ledger.fail_probes = None
    clock.advance(2)
    await engine.execute(create(2))
    assert ledger.appends == [1, 1, 1]
    assert await engine.execute(known_jobs) == {builders.job_name(1), builders.job_name(2)}


async def test_a_barred_engine_decides_and_answers_nothing(ledger: FakeLedger):
    bar: list[TidemillError] = []
    engine = Engine(ledger, Clock(), "test", barred=lambda: bar[0] if bar else None)
    await engine.start()
    waiting = await held_append(engine, ledger, 1)
    bar.append(TidemillError(Reason.NOT_LEADER, "the term is over"))
    ledger.gate.set()
    for refused in (waiting, engine.execute(create(2)), engine.execute(known_jobs)):
        with pytest.raises(TidemillError, match="the term is over"):
            await refused
    bar.clear()
    # The first was durable before the bar; nobody was told.
    assert await engine.execute(known_jobs) == {builders.job_name(1)}
    await engine.close()

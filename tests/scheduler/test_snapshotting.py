"""Snapshots of a running engine: taken beside the work, dropped events, and starts from what is left."""

import asyncio

import pytest

from services.scheduler import snapshot
from services.scheduler.clock import Clock
from services.scheduler.core import jobs
from services.scheduler.engine import Engine
from services.scheduler.ledger import MemoryLedger
from services.scheduler.ledger.base import replay
from services.scheduler.recovery import recover
from tests.scheduler import builders, recount
from tests.scheduler.fake_ledger import FakeLedger, write_failed
from tests.scheduler.refusals import refusal
from tests.scheduler.service_desk import until
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

EVERY = 10


async def create(engine: Engine, first: int, count: int) -> None:
    """So many jobs, one append each."""

    def step(number: int):
        return lambda turn: turn.record(jobs.create_job(turn.state, builders.spec(number), turn.now_ns))

    for number in range(first, first + count):
        await engine.execute(step(number))


async def started(ledger: FakeLedger | MemoryLedger) -> Engine:
    engine = Engine(ledger, Clock(), "test", snapshot_events=EVERY)
    await engine.start()
    return engine


async def snapshots(ledger: MemoryLedger, count: int) -> None:
    """Wait for the newest snapshots, and for the compaction behind them."""

    async def taken() -> bool:
        return len(ledger.snapshots()) == count and (count < 2 or ledger.first_sequence > ledger.snapshots()[-1])

    await until(taken)


async def test_a_snapshot_is_taken_every_so_many_events():
    ledger = MemoryLedger()
    engine = await started(ledger)
    await create(engine, 1, EVERY - 1)
    assert ledger.snapshots() == []
    await create(engine, EVERY, 1)
    await snapshots(ledger, 1)
    assert ledger.snapshots() == [EVERY]
    assert ledger.first_sequence == 1
    await create(engine, 20, EVERY)
    await snapshots(ledger, 2)
    await engine.close()
    heir = await started(ledger)
    recount.check_same(heir.state, engine.state)
    await heir.close()


async def test_the_events_down_to_the_last_snapshot_but_one_stay():
    ledger = MemoryLedger()
    engine = await started(ledger)
    for first in range(1, 5 * EVERY, EVERY):
        await create(engine, first, EVERY)
        await asyncio.sleep(0)
    await snapshots(ledger, 2)
    newest, before = ledger.snapshots()
    assert ledger.first_sequence == before + 1
    everything = engine.state
    epoch = engine.opened.epoch
    # Without the newest one, the one before it and the events behind it give the same.
    ledger.save_snapshot(epoch, newest, ledger.snapshot(newest)[:-1] + b"?")
    recount.check_same(recover(ledger, epoch), everything)
    assert ledger.snapshots() == [before]
    await engine.close()


async def test_a_snapshot_that_was_set_aside_is_not_counted_on():
    stored = MemoryLedger()
    ledger = FakeLedger(stored)
    engine = await started(ledger)
    for first in (1, 1 + EVERY):
        await create(engine, first, EVERY)
        await snapshots(stored, 1 + first // EVERY)
    epoch = engine.opened.epoch
    newest, before = ledger.snapshots()
    ledger.save_snapshot(epoch, newest, b"not a snapshot")
    ledger.fail_before = write_failed()
    with pytest.raises(TidemillError):
        await create(engine, 90, 1)
    assert ledger.snapshots() == [before]
    await create(engine, 1 + 2 * EVERY, EVERY)
    await engine.close()
    assert ledger.snapshots()[-1] == before
    assert stored.first_sequence == before + 1


async def test_an_orderly_stop_takes_a_snapshot():
    ledger = MemoryLedger()
    engine = await started(ledger)
    await create(engine, 1, 3)
    await engine.close()
    assert ledger.snapshots() == [3]
    heir = await started(ledger)
    await heir.close()
    assert ledger.snapshots() == [3]


async def test_nothing_that_is_not_durable_gets_into_a_snapshot():
    ledger = FakeLedger()
    engine = await started(ledger)
    await create(engine, 1, 2)
    ledger.gate.clear()
    ledger.entered.clear()
    waiting = asyncio.create_task(create(engine, 3, 1))
    assert await asyncio.to_thread(ledger.entered.wait, 10)
    ledger.fail_before = write_failed()
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    ledger.gate.set()
    await closing
    with pytest.raises(TidemillError):
        await waiting
    assert ledger.snapshots() == []
    assert [event.sequence for event in replay(ledger)] == [1, 2]


async def test_a_snapshot_that_cannot_be_saved_stops_nothing():
    ledger = FakeLedger()
    ledger.fail_saves = write_failed()
    engine = await started(ledger)
    await create(engine, 1, 3 * EVERY)
    ledger.fail_saves = None
    await create(engine, 100, EVERY)

    async def saved() -> bool:
        return bool(ledger.snapshots())

    await until(saved)
    assert len(await engine.execute(lambda turn: set(turn.state.jobs))) == 4 * EVERY
    await engine.close()


def written(count: int) -> MemoryLedger:
    """A ledger with jobs and a snapshot in the middle, opened once."""
    ledger = MemoryLedger()
    epoch = ledger.open("me").epoch
    events = [
        ledger_pb2.LedgerEvent(
            sequence=number, epoch=epoch, job_created=ledger_pb2.JobCreated(spec=builders.spec(number))
        )
        for number in range(1, count + 1)
    ]
    ledger.append(epoch, 0, events[: count // 2])
    ledger.save_snapshot(epoch, count // 2, snapshot.write(recover(ledger, epoch)))
    ledger.append(epoch, count // 2, events[count // 2 :])
    return ledger


def test_every_snapshot_damaged_needs_every_event():
    ledger = written(8)
    everything = recount.restorable(recover(ledger, 1))
    ledger.save_snapshot(1, 4, b"not a snapshot")
    assert recount.restorable(recover(ledger, 1)) == everything
    assert ledger.snapshots() == []
    ledger = written(8)
    ledger.compact(1, 4)
    ledger.save_snapshot(1, 4, b"not a snapshot")
    error = refusal(recover, ledger, 1)
    assert error.reason is Reason.LEDGER_CORRUPT
    assert "record 1 is missing" in error.message


def test_what_a_newer_version_wrote_is_not_led_over(monkeypatch: pytest.MonkeyPatch):
    ledger = written(8)
    ledger.append(1, 8, [ledger_pb2.LedgerEvent(sequence=9, epoch=1)])
    error = refusal(recover, ledger, 1)
    assert error.reason is Reason.LEDGER_UNSAFE
    assert "event 9" in error.message
    monkeypatch.setattr("services.scheduler.framing.VERSION", 0)
    error = refusal(recover, ledger, 1)
    assert error.reason is Reason.LEDGER_UNSAFE
    assert "snapshot after event 4" in error.message
    assert ledger.snapshots() == [4]

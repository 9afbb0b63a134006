"""What a standby knows: its warm copy of the state, and when it takes a leader for gone."""

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import snapshot
from services.scheduler.ledger import RedisLedger, frames
from services.scheduler.ledger.redis_address import parse
from services.scheduler.ledger.terms import Term
from services.scheduler.standby import DRIFT, TermWatch, WarmCopy
from tests.scheduler import builders, recount
from tests.scheduler.desk import Desk
from tests.scheduler.redis_server import RedisServer
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import ledger_pb2

TERM = Term(epoch=3, beat=5, released=False, address="h:1", ledger_uid="u", last_sequence=9)
LENGTH = 3.0


class Led:
    """A ledger whose leader is the test."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.ledger = RedisLedger(parse(server.url(uuid.uuid4().hex)))
        self.epoch = self.ledger.open("leader").epoch
        self.desk = Desk()

    def work(self, number: int) -> None:
        """Queue a job and lease of it, durably."""
        before = self.desk.state.sequence
        self.desk.queue(builders.spec(number), [25])
        self.desk.lease()
        self.ledger.append(self.epoch, before, self.desk.history[before:])

    def compact(self) -> None:
        """Save the state and drop the events."""
        sequence = self.desk.state.sequence
        self.ledger.save_snapshot(self.epoch, sequence, snapshot.write(self.desk.state))
        assert not self.ledger.compact(self.epoch, sequence)

    def standby(self) -> WarmCopy:
        return WarmCopy(RedisLedger(self.ledger.address))

    def equals(self, copy: WarmCopy) -> bool:
        return recount.restorable(copy.state) == recount.restorable(self.desk.state)


@pytest.fixture
def led(redis_server: RedisServer) -> Iterator[Led]:
    led = Led(redis_server)
    yield led
    led.ledger.close()


def test_the_copy_follows_the_leader(led: Led):
    copy = led.standby()
    for number in (1, 2):
        led.work(number)
        assert copy.follow().epoch == led.epoch
        assert led.equals(copy)
    assert copy.unable == ""


def test_a_copy_begins_at_a_snapshot(led: Led):
    led.work(1)
    led.compact()
    led.work(2)
    copy = led.standby()
    copy.follow()
    assert led.equals(copy)


def test_a_copy_that_was_left_behind_goes_on_from_a_snapshot(led: Led):
    led.work(1)
    copy = led.standby()
    copy.follow()
    led.work(2)
    led.compact()
    led.work(3)
    copy.follow()
    assert led.equals(copy)


def test_an_older_snapshot_stands_in_for_a_damaged_one(led: Led):
    led.work(1)
    led.ledger.save_snapshot(led.epoch, led.desk.state.sequence, snapshot.write(led.desk.state))
    led.work(2)
    led.ledger.save_snapshot(led.epoch, led.desk.state.sequence, b"half of a snap")
    copy = led.standby()
    copy.follow()
    assert led.equals(copy)


def test_without_a_whole_snapshot_a_compacted_ledger_is_refused(led: Led):
    led.work(1)
    led.compact()
    led.ledger.save_snapshot(led.epoch, led.desk.state.sequence, b"half of a snap")
    led.work(2)
    assert refusal(led.standby().follow).reason is Reason.LEDGER_CORRUPT


def test_a_damaged_last_record_is_left_to_the_next_leader(led: Led):
    led.work(1)
    before = recount.restorable(led.desk.state)
    led.ledger.append(led.epoch, led.desk.state.sequence, created(led.desk.state.sequence + 1))
    with led.server.client() as client:
        client.lset(f"{{tidemill:{led.ledger.address.name}}}:events", -1, b"half of a rec")
    copy = led.standby()
    copy.follow()
    assert recount.restorable(copy.state) == before
    assert "the last one" in RedisLedger(led.ledger.address).open("heir").repaired
    copy.follow()
    assert recount.restorable(copy.state) == before


def created(sequence: int) -> list[ledger_pb2.LedgerEvent]:
    payload = ledger_pb2.JobCreated(spec=builders.spec(9))
    return [ledger_pb2.LedgerEvent(sequence=sequence, epoch=1, job_created=payload)]


def test_an_unknown_event_keeps_it_from_leading(led: Led):
    led.work(1)
    newer = ledger_pb2.LedgerEvent.FromString(b"\xfa\x7c\x00")
    newer.sequence = led.desk.state.sequence + 1
    with led.server.client() as client:
        client.rpush(f"{{tidemill:{led.ledger.address.name}}}:events", frames.pack(newer))
    copy = led.standby()
    copy.follow()
    assert led.equals(copy)
    assert f"event {newer.sequence} is of a kind" in copy.unable


def test_a_ledger_that_became_another_one_keeps_it_from_leading(led: Led):
    led.work(1)
    copy = led.standby()
    copy.follow()
    with led.server.client() as client:
        client.delete(*client.keys(f"{{tidemill:{led.ledger.address.name}}}:*"))
    copy.follow()
    assert "and is empty with 0" in copy.unable


# When a leader counts as gone.


def test_a_vacant_term_is_over_at_once():
    watch = TermWatch(LENGTH)
    assert watch.see(replace(TERM, released=True), 0, 0)
    assert watch.see(replace(TERM, epoch=0), 0, 0)
    assert not watch.see(TERM, 0, 0)


def test_time_out_of_sight_does_not_count():
    watch = TermWatch(LENGTH)
    watch.see(TERM, 0, 0)
    watch.lose_sight()
    assert not watch.see(TERM, 100, 100)
    assert watch.see(TERM, 100 + LENGTH * (1 + DRIFT), 104)


@given(
    beats=st.lists(st.floats(0.01, 2 * LENGTH), min_size=1, max_size=20),
    looks=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 0.5)), min_size=1, max_size=60),
)
def test_nobody_takes_over_while_the_leader_may_answer(beats: list[float], looks: list[tuple[float, float]]):
    """The leader answers until a term's length after it sent a beat that arrived, whenever the standby looks."""
    sent = [0.0]
    for pause in beats:
        sent.append(sent[-1] + pause)
    watch, now = TermWatch(LENGTH), 0.0
    for pause, delay in looks:
        asked = now + pause
        read = asked + delay / 2
        now = asked + delay
        beat = sum(time <= read for time in sent)
        if watch.see(replace(TERM, beat=beat), asked, now):
            latest = max(time for time in sent if time <= read)
            assert read >= latest + LENGTH
            return

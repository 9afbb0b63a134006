"""Rows that kill engines or workers end as error rows, the rest succeeds, and the work for that is bounded."""

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core.backoff import MAX_BACKOFF_SECONDS, backoff_ns
from services.scheduler.core.leasing import EXPIRED, Requeue
from services.scheduler.core.limits import Limits
from services.scheduler.core.poison import first_half
from services.scheduler.core.records import Chunk
from services.scheduler.core.times import SECOND
from tests.scheduler import builders, recount
from tests.scheduler.desk import DIED, FAILED, RELEASED, Desk
from tidemill import rowset
from tidemill.chunk_index import ChunkIndex
from tidemill.internal.v1 import ledger_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

JOB = builders.job_name()

DEATH = Requeue(DIED, "the engine died")


def missing_rows(desk: Desk, lease: pb.Lease) -> set[int]:
    chunk = desk.state.chunks[JOB][lease.chunk_start]
    return {chunk.start + offset for offset in rowset.indices(rowset.full(chunk.rows) & ~chunk.done)}


def work_off(desk: Desk, poison: set[int], death: Requeue = DEATH, kept: int = 0) -> int:
    """A worker with one engine runs the job; rows of `poison` kill whatever runs them. Returns the deaths.

    Args:
        kept: rows that have their result before the engine dies, at most.
    """
    deaths = 0
    while True:
        desk.now += MAX_BACKOFF_SECONDS
        leases = desk.lease()
        if not leases:
            return deaths
        (lease,) = leases
        if lease.kind == pb.LEASE_KIND_FINALISE:
            return deaths
        condemned = {lease.chunk_start + offset for offset in rowset.indices(rowset.from_bytes(lease.condemned_bitmap))}
        if (missing_rows(desk, lease) - condemned) & poison:
            deaths += 1
            if early := sorted(missing_rows(desk, lease) - poison)[:kept]:
                desk.commit(builders.part(lease, {row - lease.chunk_start for row in early}, number=8))
            desk.release(lease, death)
        else:
            rows = {row - lease.chunk_start for row in missing_rows(desk, lease)}
            desk.commit(builders.part(lease, rows, failed=len(condemned), number=9))
        recount.check(desk.state)


@given(poison=st.sets(st.integers(0, 39), max_size=3))
def test_poison_rows_are_found_and_the_rest_succeeds(poison: set[int]) -> None:
    desk = Desk(Limits(chunk_rows=16))
    desk.queue(rows=[40])
    deaths = work_off(desk, poison)
    assert desk.view().row_counts == job_pb2.RowCounts(total=40, succeeded=40 - len(poison), failed=len(poison))
    assert deaths <= len(poison) * (1 + ceil(log2(16)) + 2)
    assert desk.job().condemned_rows == len(poison)
    assert recount.summary(desk.replayed()) | {"time_ns": 0} == recount.summary(desk.state) | {"time_ns": 0}


@given(poison=st.sets(st.integers(0, 39), min_size=1, max_size=3), kept=st.integers(1, 8))
def test_parts_from_before_a_chunk_was_halved_stand_beside_those_of_its_halves(poison: set[int], kept: int) -> None:
    desk = Desk(Limits(chunk_rows=16))
    desk.queue(rows=[40])
    work_off(desk, poison, kept=kept)
    spans = ChunkIndex(lambda start, rows: (range(start, start + rows), list[int]()))
    for part in desk.state.parts[JOB]:
        span, found = spans.of(part.chunk_start, part.chunk_rows)
        rows = [part.chunk_start + offset for offset in rowset.indices(part.rows)]
        assert set(rows) <= set(span), "a part of a half lies within the chunk that was halved"
        found.extend(rows)
    assert [row for span, _ in spans for row in span] == list(range(40)), "chunks follow each other"
    assert all(sorted(found) == list(span) for span, found in spans), "each row of a chunk has one result"


def test_a_row_that_kills_whole_workers_ends_as_an_error_row_too() -> None:
    desk = Desk(Limits(chunk_rows=16, max_attempts=3))
    desk.queue(rows=[16])
    deaths = work_off(desk, {5}, EXPIRED)
    assert desk.view().row_counts == job_pb2.RowCounts(total=16, succeeded=15, failed=1)
    assert deaths <= 3 + ceil(log2(16)) + 2


def test_a_suspect_runs_alone_and_is_innocent_once_it_finishes() -> None:
    desk = Desk()
    desk.queue(rows=[20])
    leases = desk.lease(2)
    assert not any(lease.alone for lease in leases)
    for lease in leases:
        desk.release(lease, DEATH)
    desk.now += MAX_BACKOFF_SECONDS
    again = desk.lease(2)
    assert all(lease.alone and lease.attempt == 2 for lease in again)
    for lease in again:
        desk.answer(lease)
    assert desk.view().row_counts.succeeded == 20


def test_deaths_do_not_use_up_attempts() -> None:
    desk = Desk(Limits(chunk_rows=4, max_attempts=2))
    desk.queue(rows=[4])
    desk.release(desk.lease()[0], DEATH)
    desk.now += MAX_BACKOFF_SECONDS
    desk.release(desk.lease()[0], Requeue(FAILED, "broken store"))
    assert desk.job().ending is None
    desk.now += MAX_BACKOFF_SECONDS
    desk.release(desk.lease()[0], Requeue(FAILED, "broken store"))
    assert desk.job().expect_ending().reason == "CHUNK_ATTEMPTS_EXHAUSTED"


@pytest.mark.parametrize("reason", [FAILED, RELEASED])
def test_only_deaths_lead_to_halving(reason: "ledger_pb2.RequeueReason.ValueType") -> None:
    desk = Desk()
    desk.queue(rows=[8])
    desk.release(desk.lease()[0], DEATH)
    desk.now += MAX_BACKOFF_SECONDS
    desk.release(desk.lease()[0], Requeue(reason, "not the engine"))
    desk.now += MAX_BACKOFF_SECONDS
    (lease,) = desk.lease()
    assert (lease.chunk_rows, lease.alone) == (8, True)


def test_a_condemned_row_that_fails_otherwise_fails_its_job_in_the_end() -> None:
    desk = Desk(Limits(chunk_rows=1, max_attempts=2))
    desk.queue(rows=[1])
    for _ in range(3):
        desk.release(desk.lease()[0], DEATH)
        desk.now += MAX_BACKOFF_SECONDS
    (lease,) = desk.lease()
    assert (lease.condemned_bitmap, lease.alone) == (b"\x01", False)
    desk.release(lease, DEATH)
    desk.now += MAX_BACKOFF_SECONDS
    desk.release(desk.lease()[0], EXPIRED)
    assert desk.job().expect_ending().reason == "CHUNK_ATTEMPTS_EXHAUSTED"


def test_a_job_of_poison_fails_after_a_bounded_number_of_rows() -> None:
    desk = Desk(Limits(chunk_rows=16, max_condemned_rows=3))
    desk.queue(rows=[64])
    deaths = work_off(desk, set(range(64)))
    ending = desk.job().expect_ending()
    assert (ending.outcome, ending.reason) == (job_pb2.JOB_STATE_FAILED, "TOO_MANY_ROWS_CONDEMNED")
    assert "4 rows" in ending.message
    assert deaths <= 4 * (1 + 4 + 2)
    recount.check(desk.state)


@given(done=st.integers(0, 2**12 - 1), rows=st.integers(2, 12))
def test_halves_miss_as_many_rows(done: int, rows: int) -> None:
    chunk = Chunk(5, rows, done & rowset.full(rows))
    if chunk.missing < 2:
        return
    first = first_half(chunk)
    before = (rowset.full(first) & ~chunk.done).bit_count()
    assert 0 < before <= chunk.missing - before <= before + 1


def test_a_failed_chunk_waits_and_one_given_back_does_not() -> None:
    desk = Desk()
    desk.queue(rows=[10])
    desk.release(desk.lease()[0], Requeue(RELEASED, "bye"))
    (lease,) = desk.lease()
    desk.release(lease, Requeue(FAILED, "broken"))
    assert desk.lease() == []
    recount.check(desk.state)
    desk.now += 1
    (again,) = desk.lease()
    assert again.attempt == 2
    recount.check(desk.state)


def test_a_waiting_chunk_is_forgotten_when_its_job_ends() -> None:
    desk = Desk()
    desk.queue(rows=[10])
    desk.release(desk.lease()[0], Requeue(FAILED, "broken"))
    desk.cancel(JOB)
    desk.now += 100
    desk.state.pass_time(desk.now_ns)
    recount.check(desk.state)
    assert desk.lease()[0].kind == pb.LEASE_KIND_FINALISE


@given(failures=st.integers(1, 10_000), fence=st.integers(1, 2**60))
def test_backoff_doubles_within_bounds(failures: int, fence: int) -> None:
    wait = backoff_ns(failures, fence)
    longest = min(MAX_BACKOFF_SECONDS, 2 ** min(failures - 1, 10)) * SECOND
    assert longest / 2 <= wait <= longest
    assert wait == backoff_ns(failures, fence)


def test_jitter_parts_fences_that_follow_each_other() -> None:
    waits = {backoff_ns(7, fence) // SECOND for fence in range(100, 120)}
    assert len(waits) > 10

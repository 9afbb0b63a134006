"""Lists, the feed, estimates and the fold itself."""

import pytest

from services.scheduler.core import views
from services.scheduler.core.apply import apply, job_of
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from tests.scheduler import builders, recount
from tests.scheduler.desk import Desk
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2, job_service_pb2

JOB = builders.job_name()
CANCELLED = job_pb2.JOB_STATE_CANCELLED
RECEIVING = job_pb2.JOB_STATE_RECEIVING
ACCEPTED = job_service_pb2.COMPLETION_KIND_ACCEPTED
FINISHED = job_service_pb2.COMPLETION_KIND_FINISHED


def test_jobs_are_listed_newest_first_by_tenant_and_state():
    desk = Desk()
    for number in (3, 1, 4, 2):
        desk.create(builders.spec(number))
    desk.create(builders.spec(9, tenant="beta"))
    desk.cancel(builders.job_name(3))

    def listed(states: tuple[job_pb2.JobState.ValueType, ...] = (), before: int = 0, limit: int = 10) -> list[str]:
        below = builders.job_name(before) if before else ""
        return [job.name for job in views.list_jobs(desk.state, "acme", states, below, limit)]

    names = [builders.job_name(number) for number in (4, 3, 2, 1)]
    assert listed() == names
    assert listed(limit=2) == names[:2]
    assert listed(before=3) == names[2:]
    assert listed((CANCELLED,)) == [builders.job_name(3)]
    assert listed((RECEIVING, CANCELLED)) == names
    assert views.list_jobs(desk.state, "nobody", (), "", 10) == []


def test_the_estimate_follows_the_rate_of_results():
    desk = Desk()
    desk.queue(rows=[30])
    (lease,) = desk.lease()
    assert views.finish_ns(desk.job()) is None
    desk.now = 1100
    desk.commit(builders.part(lease, set(range(5))))
    # One part only: 5 rows in the 100 s since the lease, 25 rows to go.
    assert views.finish_ns(desk.job()) == 1600 * SECOND
    desk.now = 1105
    desk.commit(builders.part(lease, set(range(5, 10)), number=1))
    # Then the rate since the first part: 5 rows in 5 s, 20 rows to go.
    assert views.finish_ns(desk.job()) == 1125 * SECOND
    assert desk.view().estimated_finish_time.seconds == 1125
    desk.cancel(JOB)
    assert views.finish_ns(desk.job()) is None


def test_parts_of_one_moment_have_no_rate_of_their_own():
    desk = Desk()
    desk.queue(rows=[30])
    (lease,) = desk.lease()
    desk.now = 1100
    desk.commit(builders.part(lease, set(range(5))))
    desk.commit(builders.part(lease, set(range(5, 10)), number=1))
    assert views.finish_ns(desk.job()) == 1300 * SECOND


def test_a_loading_model_shows_as_a_phase():
    desk = Desk()
    desk.queue()
    assert views.job_record(desk.job(), loading=True).phase == job_pb2.JOB_PHASE_LOADING_MODEL
    desk.cancel(JOB)
    assert views.job_record(desk.job(), loading=True).phase == job_pb2.JOB_PHASE_FINALISING


def test_revisions_rise_with_every_event():
    desk = Desk()
    seen: list[int] = []
    desk.create()
    seen.append(desk.view().revision)
    desk.open_writer(JOB)
    seen.append(desk.view().revision)
    desk.commit_segment(builders.segment(JOB, 0, 5))
    seen.append(desk.view().revision)
    desk.seal(builders.seal(JOB, 5))
    seen.append(desk.view().revision)
    assert seen == sorted(set(seen))


def test_a_replay_gives_the_same_state():
    desk = Desk()
    desk.queue(rows=[25])
    first, second = desk.lease(2)
    desk.answer(first)
    desk.release(second)
    desk.queue(builders.spec(2, request_id="r"))
    desk.cancel(JOB)
    assert recount.summary(desk.replayed()) == recount.summary(desk.state)


def test_the_fold_refuses_gaps_and_unknown_events():
    with pytest.raises(ValueError, match="follows 0"):
        apply(State(), ledger_pb2.LedgerEvent(sequence=2, job_created=ledger_pb2.JobCreated()))
    with pytest.raises(ValueError, match="does not know"):
        apply(State(), ledger_pb2.LedgerEvent(sequence=1))
    assert job_of(ledger_pb2.LedgerEvent()) == ""


def test_records_say_what_they_lack():
    desk = Desk()
    desk.create()
    with pytest.raises(ValueError, match="not sealed"):
        desk.job().expect_seal()
    with pytest.raises(ValueError, match="not ending"):
        desk.job().expect_ending()


def test_every_event_names_its_job():
    desk = Desk()
    desk.queue(rows=[10])
    (lease,) = desk.lease()
    desk.answer(lease)
    (closing,) = desk.lease()
    desk.finish(closing)
    assert {job_of(event) for event in desk.history} == {JOB}
    assert len(desk.state.ready) == 0
    assert JOB not in desk.state.ready

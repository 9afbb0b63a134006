"""Pause, resume, update, stop with a grace, expire, requeue, fail by force."""

from collections.abc import Callable
from typing import Any

import pytest

from services.scheduler.core import due, jobs, leasing, steering
from services.scheduler.core.times import SECOND
from services.scheduler.engine import Events
from tests.scheduler import builders, recount
from tests.scheduler.desk import Desk
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

JOB = builders.job_name()
DAY = 86_400


def pause(desk: Desk) -> Events:
    return desk.record(steering.pause_job(desk.state, JOB))


def resume(desk: Desk) -> Events:
    return desk.record(steering.resume_job(desk.state, JOB))


def update(desk: Desk, deadline: float = 0, **changes: Any) -> Events:
    request = pb.UpdateJobRequest(job=JOB, **changes)
    if deadline:
        request.complete_by_time.FromNanoseconds(int(deadline * SECOND))
    return desk.record(steering.update_job(desk.state, request, desk.now_ns))


def force(desk: Desk, message: str = "enough") -> Events:
    return desk.record(steering.force_fail_job(desk.state, pb.ForceFailJobRequest(job=JOB, message=message)))


def receiving() -> Desk:
    desk = Desk()
    desk.fill(builders.spec(), [5])
    return desk


def stopping() -> Desk:
    desk = queued()
    desk.lease()
    desk.cancel(JOB)
    return desk


def ended() -> Desk:
    desk = Desk()
    desk.create()
    desk.cancel(JOB)
    return desk


def queued(rows: int = 25, **policies: object) -> Desk:
    desk = Desk()
    spec = builders.spec(deadline=5000)
    for name, value in policies.items():
        setattr(spec, name, value)
    desk.queue(spec, [rows])
    return desk


def test_a_paused_job_gets_no_lease_and_finishes_what_is_open():
    desk = queued()
    (lease,) = desk.lease()
    pause(desk)
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_PAUSED
    assert view.pause.reason == "PAUSED_BY_OWNER"
    assert desk.lease() == []
    desk.answer(lease)
    assert desk.view().row_counts.succeeded == 10
    assert pause(desk) == []
    recount.check(desk.state)
    resume(desk)
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_RUNNING
    assert not view.HasField("pause")
    assert resume(desk) == []
    assert desk.lease()[0].chunk_start == 10
    recount.check(desk.state)


def test_a_job_paused_before_it_ran_goes_back_to_the_queue():
    desk = queued()
    pause(desk)
    resume(desk)
    assert desk.view().state == job_pb2.JOB_STATE_QUEUED


def test_the_last_row_ends_a_paused_job():
    desk = queued(rows=5)
    (lease,) = desk.lease()
    pause(desk)
    desk.answer(lease)
    view = desk.view()
    assert (view.state, view.phase) == (job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_PHASE_FINALISING)
    desk.finish(desk.lease()[0])
    assert desk.view().state == job_pb2.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize("make", [receiving, stopping, ended])
def test_only_a_queued_or_running_job_can_be_paused(make: Callable[[], Desk]):
    desk = make()
    for verb in (pause, resume):
        error = refusal(verb, desk)
        assert error.reason is Reason.JOB_NOT_PAUSABLE
        assert error.metadata["job"] == JOB


def test_an_update_changes_what_is_set_and_keeps_the_rest():
    desk = queued(on_deadline=job_pb2.DEADLINE_POLICY_EXPIRE)
    desk.queue(builders.spec(2, deadline=4000), [5])
    assert desk.lease()[0].spec.name == builders.job_name(2)
    update(desk, 3000)
    assert desk.lease()[0].spec.name == JOB
    update(desk, service_class=job_pb2.SERVICE_CLASS_URGENT, escalation=job_pb2.Escalation(raise_class=True))
    view = desk.view()
    assert view.complete_by_time.seconds == 3000
    assert view.spec.complete_by_time.seconds == 5000
    assert view.service_class == job_pb2.SERVICE_CLASS_URGENT
    assert view.on_deadline == job_pb2.DEADLINE_POLICY_EXPIRE
    assert view.escalation.raise_class
    assert update(desk, 3000, service_class=job_pb2.SERVICE_CLASS_URGENT) == []
    recount.check(desk.state)


@pytest.mark.parametrize("seconds", [-DAY, 0.5, 50, 31 * DAY])
def test_a_deadline_is_a_minute_to_thirty_days_away(seconds: float):
    desk = queued()
    error = refusal(update, desk, desk.now + seconds)
    assert error.reason is Reason.DEADLINE_OUT_OF_RANGE
    assert "one minute to thirty days" in error.message
    spec = builders.spec(2, deadline=int(desk.now + seconds), request_id="r")
    error = refusal(jobs.create_job, desk.state, spec, desk.now_ns)
    assert error.reason is Reason.DEADLINE_OUT_OF_RANGE


def test_a_replayed_creation_is_answered_whatever_the_time():
    desk = Desk()
    spec = builders.spec(deadline=2000, request_id="r")
    desk.create(spec)
    assert jobs.create_job(desk.state, spec, 40 * DAY * SECOND) == []


@pytest.mark.parametrize("make", [stopping, ended])
def test_an_ending_job_cannot_be_updated(make: Callable[[], Desk]):
    desk = make()
    assert refusal(update, desk, desk.now + 100).reason is Reason.JOB_TERMINAL


@pytest.mark.parametrize("change", [{"service_class": 77}, {"on_deadline": 77}])
def test_nonsense_updates_are_refused(change: dict[str, Any]):
    error = refusal(lambda: update(queued(), **change))
    assert error.violations[0].field in change


def test_a_cancelled_job_takes_what_is_done_for_two_seconds():
    desk = queued()
    first, second = desk.lease(2)
    desk.cancel(JOB)
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_CANCELLING
    assert view.row_counts.leased == 20
    assert desk.lease() == []
    assert desk.cancel(JOB) == []
    desk.commit(builders.part(first, {0, 1}))
    assert due.next_wait_ns(desk.state, desk.limits, desk.now_ns) == (1000 + 2) * SECOND
    desk.now += 1.9
    desk.settle()
    desk.commit(builders.part(first, {2}, number=1))
    desk.now += 0.2
    desk.settle()
    assert refusal(desk.commit, builders.part(second, {0})).reason is Reason.STALE_FENCE
    (closing,) = desk.lease()
    desk.give_up(closing)
    desk.finish(closing)
    assert desk.view().row_counts == job_pb2.RowCounts(total=25, succeeded=3, cancelled=22)
    recount.check(desk.state)


def test_the_last_open_lease_ends_the_grace():
    desk = queued()
    first, second = desk.lease(2)
    desk.cancel(JOB)
    desk.answer(first)
    assert desk.job().ending is None
    desk.release(second)
    assert desk.job().expect_ending().outcome == job_pb2.JOB_STATE_CANCELLED
    assert due.next_event_ns(desk.state, desk.limits) is None
    recount.check(desk.state)


def test_all_rows_done_within_the_grace_are_kept_and_the_job_is_cancelled():
    desk = queued(rows=5)
    (lease,) = desk.lease()
    desk.cancel(JOB)
    desk.answer(lease)
    desk.finish(desk.lease()[0])
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_CANCELLED
    assert view.row_counts.succeeded == 5


def test_a_job_expires_at_its_deadline_if_that_is_its_policy():
    desk = queued(on_deadline=job_pb2.DEADLINE_POLICY_EXPIRE)
    desk.queue(builders.spec(2, deadline=4000), [5])
    (other,) = desk.lease()
    (lease,) = desk.lease()
    desk.commit(builders.part(lease, {0}))
    assert due.next_event_ns(desk.state, desk.limits) == 5000 * SECOND
    desk.now = 5000
    desk.settle()
    assert desk.view().state == job_pb2.JOB_STATE_CANCELLING
    assert desk.view(2).state == job_pb2.JOB_STATE_RUNNING
    assert "is ending as EXPIRED" in refusal(desk.cancel, JOB).message
    desk.commit(builders.part(lease, {1}, number=1))
    desk.now += 2
    desk.settle()
    (closing,) = desk.lease()
    assert closing.outcome == job_pb2.JOB_STATE_EXPIRED
    desk.give_up(closing, "expired")
    desk.finish(closing)
    assert desk.view().row_counts == job_pb2.RowCounts(total=25, succeeded=2, expired=23)
    desk.answer(other)
    recount.check(desk.state)


def test_a_paused_job_expires_too_and_an_update_moves_the_moment():
    desk = queued(on_deadline=job_pb2.DEADLINE_POLICY_EXPIRE)
    pause(desk)
    update(desk, 9000)
    desk.now = 8999
    desk.settle()
    assert desk.view().state == job_pb2.JOB_STATE_PAUSED
    desk.now = 9000
    desk.settle()
    assert desk.job().expect_ending().outcome == job_pb2.JOB_STATE_EXPIRED
    assert not desk.view().HasField("pause")


def test_an_operator_takes_a_chunk_back():
    desk = queued()
    first, second = desk.lease(2)
    desk.record(leasing.requeue_chunk(desk.state, JOB, 13, desk.limits))
    assert refusal(desk.commit, builders.part(second, {0})).reason is Reason.STALE_FENCE
    desk.answer(first)
    (again,) = desk.lease()
    assert (again.chunk_start, again.attempt) == (10, 1)
    for row in (-1, 3, 24, 25):
        error = refusal(leasing.requeue_chunk, desk.state, JOB, row, desk.limits)
        assert error.reason is Reason.CHUNK_NOT_LEASED
    recount.check(desk.state)


def paused() -> Desk:
    desk = queued()
    pause(desk)
    return desk


def closing() -> Desk:
    desk = queued(rows=5)
    desk.answer(desk.lease()[0])
    desk.lease()
    return desk


@pytest.mark.parametrize("make", [receiving, queued, paused, stopping, closing])
def test_an_operator_fails_a_job_in_any_open_state(make: Callable[[], Desk]):
    desk = make()
    force(desk)
    assert force(desk) == []
    recount.check(desk.state)
    (last,) = desk.lease()
    desk.give_up(last, "failed")
    desk.finish(last)
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_FAILED
    assert (view.error_reason, view.error_message) == ("FORCED_BY_OPERATOR", "enough")
    assert force(desk) == []
    recount.check(desk.state)


def test_a_job_that_has_ended_cannot_be_failed():
    assert refusal(force, ended()).reason is Reason.JOB_TERMINAL

"""A job all of whose first rows fail pauses itself, once."""

from services.scheduler.core import steering
from services.scheduler.core.limits import Limits
from tests.scheduler import builders, recount
from tests.scheduler.desk import Desk
from tidemill.v1 import job_pb2

JOB = builders.job_name()


def running(rows: int = 60) -> Desk:
    desk = Desk(Limits(chunk_rows=10, breaker_rows=20))
    desk.queue(rows=[rows])
    return desk


def fail_chunk(desk: Desk, succeeded: int = 0) -> None:
    (lease,) = desk.lease()
    desk.commit(builders.part(lease, set(range(lease.chunk_rows)), failed=lease.chunk_rows - succeeded))


def test_a_job_of_failures_pauses_itself_and_says_what_to_do() -> None:
    desk = running()
    fail_chunk(desk)
    assert desk.view().state == job_pb2.JOB_STATE_RUNNING
    fail_chunk(desk)
    view = desk.view()
    assert (view.state, view.pause.reason) == (job_pb2.JOB_STATE_PAUSED, "ALL_ROWS_FAILED")
    assert "the first 20 rows all failed" in view.pause.message
    assert "ResumeJob" in view.pause.message
    assert desk.lease() == []
    recount.check(desk.state)


def test_it_trips_once() -> None:
    desk = running()
    fail_chunk(desk)
    fail_chunk(desk)
    desk.record(steering.resume_job(desk.state, JOB))
    for _ in range(4):
        fail_chunk(desk)
    view = desk.view()
    assert (view.state, view.row_counts.failed) == (job_pb2.JOB_STATE_RUNNING, 60)
    assert view.phase == job_pb2.JOB_PHASE_FINALISING


def test_one_success_is_enough_to_go_on() -> None:
    desk = running()
    fail_chunk(desk, succeeded=1)
    for _ in range(4):
        fail_chunk(desk)
    assert desk.view().state == job_pb2.JOB_STATE_RUNNING


def test_a_job_that_is_done_ends() -> None:
    desk = running(rows=20)
    fail_chunk(desk)
    fail_chunk(desk)
    assert desk.job().expect_ending().outcome == job_pb2.JOB_STATE_SUCCEEDED


def test_a_pause_by_its_owner_is_no_leave_to_fail() -> None:
    desk = running()
    fail_chunk(desk)
    desk.record(steering.pause_job(desk.state, JOB))
    desk.record(steering.resume_job(desk.state, JOB))
    fail_chunk(desk)
    assert desk.view().pause.reason == "ALL_ROWS_FAILED"

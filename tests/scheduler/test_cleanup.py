"""Delete, retention, sweeps of stray files, and the forgetting of a job."""

import pytest

from services.scheduler import snapshot
from services.scheduler.core import cleanup, jobs, leasing, views
from services.scheduler.core.checks import find_job
from services.scheduler.core.leasing import EXPIRED, Requeue
from services.scheduler.core.limits import Limits
from services.scheduler.core.times import SECOND
from services.scheduler.engine import Events
from tests.scheduler import builders, recount
from tests.scheduler.desk import FAILED, RELEASED, Desk
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import ledger_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

JOB = builders.job_name()
HOUR = 3600
DAY = 24 * HOUR


def done(desk: Desk | None = None, number: int = 1, request_id: str = "") -> Desk:
    """A desk with a job that has succeeded."""
    desk = desk or Desk()
    desk.queue(builders.spec(number, request_id=request_id), [5])
    desk.answer(desk.lease()[0])
    desk.finish(desk.lease()[0])
    return desk


def delete(desk: Desk, job: str = JOB) -> Events:
    return desk.record(cleanup.delete_job(desk.state, job, desk.now_ns))


def finish(desk: Desk, lease: pb.Lease, files: int = 3) -> Events:
    return desk.record(cleanup.finish_cleanup(desk.state, lease.spec.name, lease.fence, files))


def test_only_a_job_that_has_ended_can_be_deleted() -> None:
    desk = Desk()
    desk.queue(rows=[5])
    error = refusal(delete, desk)
    assert error.reason is Reason.JOB_NOT_TERMINAL
    assert "cancel it first" in error.message
    assert refusal(delete, desk, builders.job_name(7)).reason is Reason.JOB_NOT_FOUND


def test_a_deleted_job_is_hidden_at_once() -> None:
    desk = done(request_id="r")
    done(desk, 2)
    delete(desk)
    recount.check(desk.state)
    assert refusal(find_job, desk.state, JOB).reason is Reason.JOB_NOT_FOUND
    assert [job.name for job in views.list_jobs(desk.state, "acme", (), "", 9)] == [builders.job_name(2)]
    assert delete(desk) == []
    assert refusal(desk.create, builders.spec(1)).reason is Reason.REQUEST_ID_REUSED
    assert desk.create(builders.spec(3, request_id="r"))
    recount.check(desk.state)


def test_a_day_later_a_worker_removes_the_folder_and_the_job_is_forgotten() -> None:
    desk = done()
    delete(desk)
    desk.now += DAY - 1
    assert desk.lease() == []
    desk.now += 1
    (lease,) = desk.lease()
    assert (lease.kind, lease.cleanup) == (pb.LEASE_KIND_CLEANUP, ledger_pb2.CLEANUP_KIND_PURGE)
    assert lease.spec.name == JOB
    recount.check(desk.state)
    finish(desk, lease)
    recount.check(desk.state)
    state = desk.state
    left = (state.jobs, state.segments, state.parts, state.part_of, state.cleanups, state.leases)
    assert not any(left)
    assert refusal(finish, desk, lease).reason is Reason.STALE_FENCE
    assert desk.create()


def test_old_jobs_are_deleted_by_themselves() -> None:
    desk = done(Desk(Limits(chunk_rows=10, retention_days=2)))
    desk.now += 2 * DAY - 1
    desk.settle()
    assert desk.state.cleanups[JOB].purge_ns == 0
    desk.now += 1
    desk.settle()
    assert desk.state.cleanups[JOB].purge_ns == desk.now_ns + DAY * SECOND
    recount.check(desk.state)


def test_an_hour_after_its_end_a_job_is_swept_once() -> None:
    desk = done()
    desk.now += HOUR - 1
    assert desk.lease() == []
    desk.now += 1
    (lease,) = desk.lease()
    assert lease.cleanup == ledger_pb2.CLEANUP_KIND_ORPHANS
    finish(desk, lease, 0)
    recount.check(desk.state)
    desk.now += 100 * HOUR
    assert desk.lease() == []
    assert desk.view().row_counts.succeeded == 5


@pytest.mark.parametrize(("how", "waits", "attempt"), [(FAILED, True, 2), (RELEASED, False, 1)])
def test_a_task_that_comes_back_waits_like_other_work(
    how: "ledger_pb2.RequeueReason.ValueType", waits: bool, attempt: int
) -> None:
    desk = done()
    desk.now += HOUR
    desk.release(desk.lease()[0], Requeue(how, "store is down"))
    recount.check(desk.state)
    assert bool(desk.lease()) != waits
    if waits:
        desk.now += 1
        (again,) = desk.lease()
        assert again.attempt == attempt
    recount.check(desk.state)


def test_a_task_whose_worker_vanished_goes_to_another() -> None:
    desk = done()
    desk.now += HOUR
    (lease,) = desk.lease()
    desk.record(leasing.expire_lease(desk.state, lease.fence, desk.limits))
    assert refusal(desk.release, lease, EXPIRED).reason is Reason.STALE_FENCE
    desk.back_off()
    assert desk.lease()[0].attempt == 2


def test_cleaning_up_delays_no_rows_and_few_tasks_run_at_a_time() -> None:
    desk = Desk(Limits(chunk_rows=10, max_cleanups=2))
    for number in range(1, 5):
        done(desk, number)
    desk.now += 2 * HOUR - 1
    desk.queue(builders.spec(9), [5])
    leases = desk.lease(9)
    assert [lease.kind for lease in leases] == [pb.LEASE_KIND_CHUNK, *[pb.LEASE_KIND_CLEANUP] * 2]
    finish(desk, leases[1])
    assert [lease.kind for lease in desk.lease(9)] == [pb.LEASE_KIND_CLEANUP]
    recount.check(desk.state)


def test_cleaning_up_that_is_an_hour_late_goes_before_rows() -> None:
    desk = Desk(Limits(chunk_rows=10, max_cleanups=2))
    for number in range(1, 5):
        done(desk, number)
    desk.now += 2 * HOUR
    desk.queue(builders.spec(9), [25])
    leases = desk.lease(3)
    assert [lease.kind for lease in leases] == [*[pb.LEASE_KIND_CLEANUP] * 2, pb.LEASE_KIND_CHUNK]
    assert {lease.kind for lease in desk.lease(1)} == {pb.LEASE_KIND_CHUNK}
    finish(desk, leases[0])
    assert [lease.kind for lease in desk.lease(1)] == [pb.LEASE_KIND_CLEANUP]
    recount.check(desk.state)


def test_a_job_deleted_while_it_is_swept_is_purged_afterwards() -> None:
    desk = done()
    desk.now += HOUR
    (lease,) = desk.lease()
    delete(desk)
    recount.check(desk.state)
    finish(desk, lease)
    desk.now += DAY
    assert desk.lease()[0].cleanup == ledger_pb2.CLEANUP_KIND_PURGE
    recount.check(desk.state)


def test_a_deleted_job_leaves_memory_in_its_turn() -> None:
    desk = done()
    delete(desk)
    assert [name for _, name in desk.state.ended] == [JOB]
    desk.record([ledger_pb2.LedgerEvent(job_archived=ledger_pb2.JobArchived(job=JOB))])
    recount.check(desk.state)
    assert not desk.state.ended
    assert desk.state.hidden(JOB)
    desk.now += DAY
    (lease,) = desk.lease()
    finish(desk, lease)
    assert not desk.state.cleanups
    recount.check(desk.state)


def test_a_job_that_left_memory_is_deleted_and_purged_all_the_same() -> None:
    desk = done()
    desk.record([ledger_pb2.LedgerEvent(job_archived=ledger_pb2.JobArchived(job=JOB))])
    delete(desk)
    desk.now += DAY
    (lease,) = desk.lease()
    assert lease.spec.name == JOB
    finish(desk, lease)
    assert not desk.state.cleanups
    recount.check(desk.state)


def test_snapshots_hold_what_is_left_to_do() -> None:
    desk = done(request_id="r")
    done(desk, 2)
    done(desk, 3)
    desk.now += HOUR
    desk.lease()
    delete(desk, builders.job_name(2))
    assert jobs.existing_job(desk.state, builders.spec(8, request_id="r")) is not None
    restored = snapshot.load(snapshot.write(desk.state))
    recount.check(restored)
    assert recount.summary(restored) == recount.summary(desk.state)

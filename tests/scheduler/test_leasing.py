"""Leases: who gets what, what comes back, when a job is given up."""

from services.scheduler.core import leasing, views
from services.scheduler.core.limits import Limits
from services.scheduler.core.requeues import CHUNK_ATTEMPTS_EXHAUSTED, Requeue
from tests.scheduler import builders, recount
from tests.scheduler.desk import FAILED, RELEASED, Desk
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2, model_service_pb2

JOB = builders.job_name()
COLD = model_service_pb2.MODEL_STATE_COLD
LOADED = model_service_pb2.MODEL_STATE_LOADED
BROKEN = model_service_pb2.MODEL_STATE_FAILED


def owners(leases: list[pb.Lease]) -> list[str]:
    return [lease.spec.name for lease in leases]


def test_the_earliest_deadline_goes_first_then_the_first_sealed():
    desk = Desk(Limits(chunk_rows=100))
    late = desk.queue(builders.spec(1, deadline=300))
    second = desk.fill(builders.spec(2, deadline=200), [5])
    first = desk.queue(builders.spec(3, deadline=200), [5])
    desk.seal(builders.seal(second, 5))
    assert owners(desk.lease(5)) == [first, second, late]
    recount.check(desk.state, desk.limits)


def test_a_loaded_model_goes_first_and_another_before_the_worker_idles():
    desk = Desk(Limits(chunk_rows=100))
    cold = desk.queue(builders.spec(1, model="cold", deadline=100_000))
    loaded = desk.queue(builders.spec(2, model="loaded", deadline=100_000))
    earlier = desk.queue(builders.spec(3, model="cold", deadline=90_000))
    offer = builders.offer("w", cold=COLD, loaded=LOADED)
    assert owners(desk.lease(5, offer)) == [loaded, earlier, cold]


def test_only_offered_models_that_did_not_fail():
    desk = Desk()
    desk.queue(builders.spec(1, model="absent"))
    desk.queue(builders.spec(2, model="broken"))
    assert desk.lease(5, builders.offer("w", broken=BROKEN, tiny=LOADED)) == []


def test_caps_hold_in_total_and_by_tenant_model_and_job():
    limits = Limits(chunk_rows=1, max_leases=6, max_leases_per_tenant=4, max_leases_per_model=5, max_leases_per_job=3)
    desk = Desk(limits)
    desk.queue(builders.spec(1), [30])
    desk.queue(builders.spec(2), [30])
    desk.queue(builders.spec(3, tenant="beta"), [30])
    desk.queue(builders.spec(4, tenant="beta", model="other"), [30])
    leases = desk.lease(100, builders.offer("w", tiny=LOADED, other=LOADED))
    assert desk.state.in_flight.total == len(leases) == 6
    assert desk.state.in_flight.by_tenant == {"acme": 3, "beta": 3}
    assert max(desk.state.in_flight.by_job.values()) <= 3
    recount.check(desk.state, limits)
    desk.release(leases[0], Requeue(RELEASED))
    (again,) = desk.lease(100, builders.offer("w", tiny=LOADED, other=LOADED))
    assert (again.spec.name, again.chunk_start) == (builders.job_name(1), 0)


def test_returned_chunks_go_out_before_fresh_ones():
    desk = Desk()
    desk.queue(rows=[100])
    first, second, third = desk.lease(3)
    desk.release(third)
    desk.release(first)
    desk.commit(builders.part(second, {0}))
    desk.back_off()
    assert [lease.chunk_start for lease in desk.lease(3)] == [0, 20, 30]
    recount.check(desk.state)


def test_a_chunk_given_back_in_order_counts_no_attempt():
    desk = Desk()
    desk.queue()
    (lease,) = desk.lease()
    for _ in range(20):
        desk.release(lease, Requeue(RELEASED, "shutting down"))
        (lease,) = desk.lease()
        assert lease.attempt == 1
    assert desk.view().state == job_pb2.JOB_STATE_RUNNING


def test_a_chunk_that_fails_too_often_fails_its_job():
    desk = Desk(Limits(chunk_rows=10, max_attempts=3))
    desk.queue(rows=[25])
    for attempt in (1, 2, 3):
        (lease,) = desk.lease()
        assert lease.attempt == attempt
        desk.commit(builders.part(lease, {attempt}))
        desk.release(lease, Requeue(FAILED, f"engine died {attempt}"))
        desk.back_off()
        recount.check(desk.state)
    ending = desk.job().expect_ending()
    assert (ending.outcome, ending.reason) == (job_pb2.JOB_STATE_FAILED, CHUNK_ATTEMPTS_EXHAUSTED)
    assert "failed 3 times" in ending.message
    assert "engine died 3" in ending.message
    (closing,) = desk.lease()
    desk.give_up(closing, "failed")
    desk.finish(closing)
    assert desk.view().row_counts == job_pb2.RowCounts(total=25, succeeded=3, failed=22)
    assert desk.view().error_reason == CHUNK_ATTEMPTS_EXHAUSTED


def test_the_last_attempt_may_be_given_back_in_order():
    desk = Desk(Limits(chunk_rows=10, max_attempts=2))
    desk.queue(rows=[10])
    (lease,) = desk.lease()
    desk.release(lease, Requeue(FAILED, "engine died"))
    desk.back_off()
    (lease,) = desk.lease()
    desk.release(lease, Requeue(RELEASED, "shutting down"))
    assert desk.job().ending is None
    (lease,) = desk.lease()
    assert lease.attempt == 2
    desk.answer(lease)
    assert desk.job().expect_ending().outcome == job_pb2.JOB_STATE_SUCCEEDED


def test_a_cancelled_job_leaves_no_chunk_waiting():
    desk = Desk()
    desk.queue()
    first, second = desk.lease(2)
    desk.release(first)
    desk.cancel_now(JOB)
    recount.check(desk.state)
    assert refusal(desk.commit, builders.part(second, {0})).reason is Reason.STALE_FENCE


def test_expiry_counts_as_an_attempt():
    desk = Desk(Limits(chunk_rows=10, max_attempts=2))
    desk.queue()
    (lease,) = desk.lease()
    desk.record(leasing.expire_lease(desk.state, lease.fence, desk.limits))
    desk.back_off()
    (again,) = desk.lease()
    assert again.attempt == 2
    desk.release(again, Requeue(FAILED, "broken"))
    assert "failed 2 times; the last time: broken" in desk.job().expect_ending().message
    assert leasing.expire_lease(desk.state, lease.fence, desk.limits) == []


def test_a_lease_that_is_over_cannot_be_released():
    desk = Desk()
    desk.queue()
    other = desk.queue(builders.spec(2))
    (lease,) = desk.lease()
    desk.release(lease)
    assert refusal(desk.release, lease).reason is Reason.STALE_FENCE
    (lease,) = desk.lease()
    lease.spec.name = other
    assert refusal(desk.release, lease).reason is Reason.STALE_FENCE
    lease.spec.name = builders.job_name(9)
    assert refusal(desk.release, lease).reason is Reason.JOB_NOT_FOUND


def test_closing_tasks_go_first_to_any_worker_and_beyond_caps():
    desk = Desk(Limits(chunk_rows=10, max_leases=1))
    desk.queue(builders.spec(1), [10])
    desk.queue(builders.spec(2), [20])
    (lease,) = desk.lease(9)
    desk.answer(lease)
    closing, chunk = desk.lease(9, builders.offer("w2"))
    assert (closing.kind, closing.spec.name) == (pb.LEASE_KIND_FINALISE, JOB)
    assert chunk.spec.name == builders.job_name(2)
    desk.cancel_now(builders.job_name(2))
    (closing,) = desk.lease(9, builders.offer("w3", unrelated=LOADED))
    assert closing.spec.name == builders.job_name(2)
    recount.check(desk.state, desk.limits)


def test_a_failing_closing_task_backs_off():
    desk = Desk()
    desk.queue(rows=[10])
    (lease,) = desk.lease()
    desk.answer(lease)
    waits: list[float] = []
    for attempt in range(1, 9):
        (closing,) = desk.lease()
        assert closing.attempt == attempt
        desk.release(closing, Requeue(FAILED, "store is down"))
        before = desk.now
        assert desk.lease() == []
        desk.now = desk.state.closing[0][0] / 1e9 + 0.001
        waits.append(desk.now - before)
    for wait, longest in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert longest / 2 <= wait <= longest + 0.01
    (closing,) = desk.lease()
    desk.release(closing, Requeue(RELEASED))
    (closing,) = desk.lease()
    assert closing.attempt == 9
    # A worker that vanished with it may have been killed by it.
    desk.release(closing)
    assert desk.lease() == []
    desk.now = desk.state.closing[0][0] / 1e9 + 0.001
    (closing,) = desk.lease()
    desk.finish(closing)
    assert desk.view().state == job_pb2.JOB_STATE_SUCCEEDED
    recount.check(desk.state)


def test_a_job_that_can_never_be_closed_fails_without_a_manifest():
    desk = Desk()
    desk.queue(rows=[10])
    (lease,) = desk.lease()
    desk.answer(lease)
    (closing,) = desk.lease()
    desk.release(closing, Requeue(FAILED, "part 3 is not what was written", "DATA_CORRUPT"))
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_FAILED
    assert (view.error_reason, view.output_manifest_key) == ("DATA_CORRUPT", "")
    assert view.row_counts == job_pb2.RowCounts(total=10, succeeded=10)
    assert desk.lease() == []
    recount.check(desk.state)
    assert recount.summary(desk.replayed()) == recount.summary(desk.state)


def test_input_that_cannot_be_read_ends_the_job_too():
    desk = Desk()
    desk.queue(rows=[25])
    (lease,) = desk.lease()
    corrupt = Requeue(FAILED, "segment is not what was written", "DATA_CORRUPT")
    desk.release(lease, corrupt)
    (closing,) = desk.lease()
    desk.release(closing, corrupt)
    assert desk.view().state == job_pb2.JOB_STATE_FAILED
    assert desk.view().row_counts == job_pb2.RowCounts(total=25, pending=25)
    recount.check(desk.state)


def test_a_lease_is_void_for_everyone_but_its_worker():
    desk = Desk()
    desk.queue()
    (lease,) = desk.lease()
    assert not views.is_void(desk.state, JOB, lease.fence, "w1")
    assert views.is_void(desk.state, JOB, lease.fence, "w2")
    assert views.is_void(desk.state, builders.job_name(2), lease.fence, "w1")
    desk.cancel_now(JOB)
    assert views.is_void(desk.state, JOB, lease.fence, "w1")

"""Create, seal, cancel, expire: what is refused, what is repeated, what it leads to."""

import pytest

from services.scheduler.core import jobs
from services.scheduler.core.leasing import Requeue
from services.scheduler.core.times import SECOND
from tests.scheduler import builders, recount
from tests.scheduler.desk import FAILED, Desk
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

JOB = builders.job_name()


def test_a_created_job_receives_rows():
    desk = Desk()
    desk.create()
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_RECEIVING
    assert view.phase == job_pb2.JOB_PHASE_UNSPECIFIED
    assert view.create_time.seconds == 1000
    assert view.revision == 1
    recount.check(desk.state)


def test_create_is_idempotent_by_request_id():
    desk = Desk()
    desk.create(builders.spec(1, request_id="r"))
    assert desk.create(builders.spec(2, request_id="r")) == []
    existing = jobs.existing_job(desk.state, builders.spec(2, request_id="r"))
    assert existing is not None
    assert existing.name == JOB
    assert desk.create(builders.spec(3, tenant="other", request_id="r"))
    recount.check(desk.state)


def test_a_request_id_cannot_stand_for_two_jobs():
    desk = Desk()
    desk.create(builders.spec(1, request_id="r"))
    error = refusal(desk.create, builders.spec(2, request_id="r", model="other"))
    assert error.reason is Reason.REQUEST_ID_REUSED
    assert error.metadata["job"] == JOB


def test_a_name_cannot_stand_for_two_jobs():
    desk = Desk()
    desk.create()
    assert desk.create() == []
    assert refusal(desk.create, builders.spec(model="other")).reason is Reason.REQUEST_ID_REUSED
    assert refusal(desk.create, builders.spec(request_id="r")).reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "jobs/1"}, Reason.INVALID_NAME),
        ({"tenant": "other"}, Reason.INVALID_ARGUMENT),
        ({"model": ""}, Reason.INVALID_ARGUMENT),
        ({"model": "m" * 513}, Reason.INVALID_ARGUMENT),
        ({"execution_mode": 9}, Reason.INVALID_ARGUMENT),
        ({"request_id": "r" * 513}, Reason.INVALID_ARGUMENT),
        ({"request_id": "r", "request_digest": b"short"}, Reason.INVALID_ARGUMENT),
    ],
)
def test_nonsense_specifications_are_refused(change: dict[str, object], reason: Reason):
    spec = builders.spec()
    for name, value in change.items():
        setattr(spec, name, value)
    error = refusal(Desk().create, spec)
    assert error.reason is reason
    if reason is Reason.INVALID_ARGUMENT:
        assert error.violations


def test_a_specification_needs_a_deadline():
    spec = builders.spec()
    spec.ClearField("complete_by_time")
    assert refusal(Desk().create, spec).violations[0].field == "spec.complete_by_time"


def test_seal_queues_the_job():
    desk = Desk()
    desk.queue(rows=[10, 15])
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_QUEUED
    assert view.phase == job_pb2.JOB_PHASE_WAITING
    assert view.dataset == "answers"
    assert view.input_data_version == builders.SHA
    assert view.row_counts == job_pb2.RowCounts(total=25, pending=25)
    recount.check(desk.state)


def test_seal_checks_the_count_and_names_both_figures():
    desk = Desk()
    desk.fill(builders.spec(), [25])
    error = refusal(desk.seal, builders.seal(JOB, 24))
    assert error.reason is Reason.ROW_COUNT_MISMATCH
    assert error.metadata["row_count"] == "24"
    assert error.metadata["next_offset"] == "25"
    assert desk.view().state == job_pb2.JOB_STATE_RECEIVING


def test_an_empty_job_cannot_be_sealed():
    desk = Desk()
    desk.create()
    assert refusal(desk.seal, builders.seal(JOB, 0)).reason is Reason.JOB_EMPTY


def test_seal_is_repeatable_with_the_same_count_only():
    desk = Desk()
    desk.queue()
    assert desk.seal(builders.seal(JOB, 25)) == []
    error = refusal(desk.seal, builders.seal(JOB, 26))
    assert error.reason is Reason.JOB_ALREADY_SEALED
    desk.cancel(JOB)
    assert desk.seal(builders.seal(JOB, 25)) == []


def test_a_cancelled_job_cannot_be_sealed():
    desk = Desk()
    desk.fill(builders.spec(), [25])
    desk.cancel(JOB)
    assert refusal(desk.seal, builders.seal(JOB, 25)).reason is Reason.JOB_NOT_RECEIVING


@pytest.mark.parametrize(
    "change",
    [{"dataset": ""}, {"input_data_version": b""}, {"input_manifest_key": "jobs/other/x/input/manifest.json"}],
)
def test_nonsense_seals_are_refused(change: dict[str, object]):
    desk = Desk()
    desk.fill(builders.spec(), [25])
    request = builders.seal(JOB, 25)
    for name, value in change.items():
        setattr(request, name, value)
    error = refusal(desk.seal, request)
    assert error.reason is Reason.INVALID_ARGUMENT
    assert error.violations[0].field in change


def test_unknown_and_misnamed_jobs():
    desk = Desk()
    assert refusal(desk.cancel, JOB).reason is Reason.JOB_NOT_FOUND
    assert refusal(desk.cancel, "nonsense").reason is Reason.INVALID_NAME
    assert refusal(desk.seal, pb.SealJobRequest(job=JOB)).reason is Reason.JOB_NOT_FOUND


def test_cancel_of_a_job_without_rows_is_immediate():
    desk = Desk()
    desk.create()
    desk.cancel(JOB)
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_CANCELLED
    assert view.end_time.seconds == 1000
    assert desk.lease() == []
    assert desk.cancel(JOB) == []
    recount.check(desk.state)


def test_cancel_voids_leases_and_closes_the_job():
    desk = Desk()
    desk.queue(rows=[45])
    first, second = desk.lease(2)
    desk.commit(builders.part(first, {0, 1, 2}))
    desk.cancel_now(JOB)
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_CANCELLING
    assert view.phase == job_pb2.JOB_PHASE_FINALISING
    assert view.row_counts == job_pb2.RowCounts(total=45, succeeded=3, pending=42)
    assert refusal(desk.commit, builders.part(second, {0})).reason is Reason.STALE_FENCE
    assert desk.commit(builders.part(first, {0, 1, 2})) == []
    assert desk.cancel(JOB) == []
    recount.check(desk.state)

    (closing,) = desk.lease(5)
    assert closing.outcome == job_pb2.JOB_STATE_CANCELLED
    assert [(r.chunk_start, r.chunk_rows, r.done_bitmap) for r in closing.remainders] == [
        (0, 10, b"\x07\x00"),
        (10, 10, b""),
        (20, 25, b""),
    ]
    desk.give_up(closing)
    desk.finish(closing)
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_CANCELLED
    assert view.row_counts == job_pb2.RowCounts(total=45, succeeded=3, cancelled=42)
    assert desk.cancel(JOB) == []
    recount.check(desk.state)


def test_a_receiving_job_can_be_cancelled_with_its_rows():
    desk = Desk()
    desk.fill(builders.spec(), [70_000])
    desk.cancel(JOB)
    (closing,) = desk.lease()
    assert [(r.chunk_start, r.chunk_rows) for r in closing.remainders] == [(0, 65_536), (65_536, 4_464)]
    assert closing.row_count == 70_000
    assert closing.input_manifest_key == ""
    desk.give_up(closing)
    desk.finish(closing)
    assert desk.view().row_counts.cancelled == 70_000
    recount.check(desk.state)


def test_a_job_that_ends_otherwise_cannot_be_cancelled():
    desk = Desk()
    desk.queue(rows=[5])
    (lease,) = desk.lease()
    desk.answer(lease)
    error = refusal(desk.cancel, JOB)
    assert error.reason is Reason.JOB_TERMINAL
    assert "is ending as SUCCEEDED" in error.message
    (closing,) = desk.lease()
    desk.finish(closing)
    error = refusal(desk.cancel, JOB)
    assert "has ended as SUCCEEDED" in error.message
    assert desk.view().state == job_pb2.JOB_STATE_SUCCEEDED


def test_an_unsealed_job_expires_after_a_day():
    desk = Desk()
    desk.create(builders.spec(1))
    desk.now += 100
    desk.fill(builders.spec(2), [5])
    desk.queue(builders.spec(3))
    assert jobs.next_expiry_ns(desk.state) == 87_400 * SECOND
    assert jobs.expire_oldest(desk.state, 87_399 * SECOND) == []
    desk.now = 90_000
    while events := jobs.expire_oldest(desk.state, desk.now_ns):
        desk.record(events)
    assert desk.view(1).state == job_pb2.JOB_STATE_EXPIRED
    assert desk.view(2).state == job_pb2.JOB_STATE_CANCELLING
    assert desk.view(3).state == job_pb2.JOB_STATE_QUEUED
    assert jobs.next_expiry_ns(desk.state) is None
    (closing,) = desk.lease()
    assert closing.outcome == job_pb2.JOB_STATE_EXPIRED
    desk.give_up(closing, "expired")
    desk.finish(closing)
    assert desk.view(2).state == job_pb2.JOB_STATE_EXPIRED
    assert desk.view(2).row_counts.expired == 5
    recount.check(desk.state)


def test_a_fatal_reason_fails_the_job_with_its_words():
    desk = Desk()
    desk.queue(rows=[25])
    first, _second = desk.lease(2)
    desk.release(first, Requeue(FAILED, "the weights changed", "MODEL_CHANGED"))
    assert desk.view().state == job_pb2.JOB_STATE_RUNNING
    assert desk.view().phase == job_pb2.JOB_PHASE_FINALISING
    (closing,) = desk.lease()
    assert (closing.error_reason, closing.error_message) == ("MODEL_CHANGED", "the weights changed")
    desk.give_up(closing, "failed")
    desk.finish(closing)
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_FAILED
    assert (view.error_reason, view.error_message) == ("MODEL_CHANGED", "the weights changed")
    assert view.row_counts == job_pb2.RowCounts(total=25, failed=25)
    recount.check(desk.state)


def test_specifications_are_kept_whole():
    desk = Desk()
    spec = builders.spec()
    spec.labels["team"] = "tide"
    spec.traceparent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    desk.create(spec)
    assert desk.view().spec == spec
    assert isinstance(desk.view(), records_pb2.JobRecord)

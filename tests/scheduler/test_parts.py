"""Parts: visible once, under the current fence only, and never in contradiction to themselves."""

import pytest

from services.scheduler.core import jobs, views
from services.scheduler.core.admission import Admission
from tests.scheduler import builders, recount
from tests.scheduler.desk import Desk
from tests.scheduler.refusals import refusal
from tidemill import rowset
from tidemill.errors import Reason
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

JOB = builders.job_name()


def leased(rows: int = 25) -> tuple[Desk, pb.Lease]:
    desk = Desk()
    desk.queue(rows=[rows])
    (lease,) = desk.lease()
    return desk, lease


def test_a_lease_carries_what_the_worker_needs():
    desk = Desk()
    desk.queue(rows=[8, 8, 9])
    first, second = desk.lease(2)
    assert (first.chunk_start, first.chunk_rows, first.attempt, first.fence) == (0, 10, 1, 7)
    assert [segment.start for segment in first.segments] == [0, 8]
    assert [segment.start for segment in second.segments] == [8, 16]
    assert first.done_bitmap == b"\x00\x00"
    assert first.ttl.seconds == 15
    assert first.spec == builders.spec()


def test_parts_accumulate_until_the_job_is_done():
    desk, lease = leased(10)
    desk.now += 10
    desk.commit(builders.part(lease, {0, 1, 2}, failed=1))
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_RUNNING
    assert view.phase == job_pb2.JOB_PHASE_RUNNING
    assert view.row_counts == job_pb2.RowCounts(total=10, succeeded=2, failed=1, leased=7)
    assert view.usage == job_pb2.TokenUsage(prompt_tokens=9, output_tokens=6)
    assert (view.model_digest, view.engine_build) == ("d1", "vllm test")
    assert not views.chunk_done(desk.state, JOB, 0)
    recount.check(desk.state)
    events = desk.commit(builders.part(lease, set(range(3, 10)), number=1))
    assert [event.WhichOneof("payload") for event in events] == ["part_committed", "job_ending"]
    assert views.chunk_done(desk.state, JOB, 0)
    assert desk.view().phase == job_pb2.JOB_PHASE_FINALISING
    assert desk.view().state == job_pb2.JOB_STATE_RUNNING
    recount.check(desk.state)
    (closing,) = desk.lease()
    assert closing.kind == pb.LEASE_KIND_FINALISE
    assert closing.outcome == job_pb2.JOB_STATE_SUCCEEDED
    assert not closing.remainders
    desk.finish(closing)
    view = desk.view()
    assert view.state == job_pb2.JOB_STATE_SUCCEEDED
    assert view.output_manifest_key.endswith("/output/manifest.json")
    assert view.row_counts == job_pb2.RowCounts(total=10, succeeded=9, failed=1)
    recount.check(desk.state)


def test_the_engine_shown_is_that_of_the_first_result():
    desk, lease = leased()
    desk.commit(builders.part(lease, {0}))
    other = builders.part(lease, {1}, number=1)
    other.model_digest, other.engine_build = "d2", "vllm other"
    desk.commit(other)
    assert (desk.view().model_digest, desk.view().engine_build) == ("d1", "vllm test")


def test_result_offsets_follow_commit_order():
    desk = Desk()
    desk.queue(rows=[25])
    first, second = desk.lease(2)
    desk.commit(builders.part(second, {4, 5}))
    desk.commit(builders.part(first, {0}))
    desk.commit(builders.part(second, {6}, number=1))
    parts = views.list_parts(desk.state, JOB, 0, 10)
    assert [(part.chunk_start, part.first_result_offset) for part in parts] == [(10, 0), (0, 2), (10, 3)]
    assert views.list_parts(desk.state, JOB, 2, 10) == parts[2:]


def test_a_repeat_is_a_duplicate_whatever_became_of_the_lease():
    desk, lease = leased()
    first = builders.part(lease, {0, 1})
    desk.commit(first)
    assert desk.commit(first) == []
    desk.answer(lease)
    assert desk.commit(first) == []
    desk.cancel_now(JOB)
    (closing,) = desk.lease()
    desk.give_up(closing)
    desk.finish(closing)
    assert desk.commit(first) == []
    recount.check(desk.state)


def test_other_content_under_the_same_number_is_a_conflict():
    desk, lease = leased()
    desk.commit(builders.part(lease, {0, 1}))
    assert refusal(desk.commit, builders.part(lease, {2})).reason is Reason.PART_CONFLICT
    desk.release(lease)
    assert refusal(desk.commit, builders.part(lease, {2})).reason is Reason.PART_CONFLICT


def test_a_row_has_one_result():
    desk, lease = leased()
    desk.commit(builders.part(lease, {0, 1}))
    error = refusal(desk.commit, builders.part(lease, {1, 2}, number=1))
    assert error.reason is Reason.PART_CONFLICT
    assert "1 of its rows" in error.message


def test_a_stale_fence_commits_nothing():
    desk, lease = leased()
    desk.commit(builders.part(lease, {0, 1}))
    desk.release(lease)
    desk.back_off()
    (again,) = desk.lease()
    assert again.fence > lease.fence
    assert again.done_bitmap == b"\x03\x00"
    assert again.attempt == 2
    error = refusal(desk.commit, builders.part(lease, {2}, number=1))
    assert error.reason is Reason.STALE_FENCE
    assert error.metadata["fence"] == str(lease.fence)


def test_a_fence_of_another_job_is_stale():
    desk = Desk()
    desk.queue(builders.spec(1))
    other = desk.queue(builders.spec(2))
    (lease,) = desk.lease()
    request = builders.part(lease, {0})
    request.job = other
    assert refusal(desk.commit, request).reason is Reason.STALE_FENCE


@pytest.mark.parametrize(
    "change",
    [
        {"row_bitmap": b""},
        {"row_bitmap": rowset.to_bytes(1 << 12, 16)},
        {"row_count": 3},
        {"sha256": b"short"},
        {"part_number": -1},
        {"chunk_start": 10},
        {"chunk_rows": 9},
    ],
)
def test_parts_that_contradict_themselves_are_refused(change: dict[str, object]):
    desk, lease = leased()
    request = builders.part(lease, {0, 1})
    for name, value in change.items():
        setattr(request.part, name, value)
    assert refusal(desk.commit, request).reason is Reason.PART_INVALID
    assert desk.job().results == 0


@pytest.mark.parametrize(
    "change",
    [{"succeeded": 1}, {"succeeded": 1, "cancelled": 1}, {"succeeded": 3, "failed": -1}, {"prompt_tokens": -1}],
)
def test_tallies_that_contradict_themselves_are_refused(change: dict[str, int]):
    desk, lease = leased()
    request = builders.part(lease, {0, 1})
    for name, value in change.items():
        setattr(request.part.tally, name, value)
    assert refusal(desk.commit, request).reason is Reason.PART_INVALID


def test_a_part_lies_in_its_job_output_folder():
    desk, lease = leased()
    request = builders.part(lease, {0, 1})
    request.part.key = "jobs/other/x/output/y.parquet"
    assert refusal(desk.commit, request).reason is Reason.INVALID_ARGUMENT


def test_a_closing_task_gives_rows_up_under_their_own_name():
    desk, lease = leased()
    desk.cancel_now(JOB)
    (closing,) = desk.lease()
    chunk = (closing.remainders[0].chunk_start, closing.remainders[0].chunk_rows)
    wrong = builders.part(closing, {0}, chunk=chunk, outcome="expired")
    assert refusal(desk.commit, wrong).reason is Reason.PART_INVALID
    unknown = builders.part(closing, {0}, chunk=(3, 5), outcome="cancelled")
    assert refusal(desk.commit, unknown).reason is Reason.PART_INVALID
    assert refusal(desk.commit, builders.part(lease, {0}, number=3)).reason is Reason.STALE_FENCE


def test_a_fence_stands_for_its_own_chunk_only():
    desk = Desk()
    desk.queue(rows=[25])
    first, second = desk.lease(2)
    crossed = builders.part(first, {0}, chunk=(second.chunk_start, second.chunk_rows))
    error = refusal(desk.commit, crossed)
    assert error.reason is Reason.PART_INVALID
    assert f"fence {first.fence} stands for chunk 0" in error.message


def test_a_finished_manifest_must_agree_with_the_ledger():
    desk, lease = leased(10)
    desk.answer(lease)
    (closing,) = desk.lease()
    tally = builders.part(lease, set(range(9))).part.tally
    error = refusal(desk.record_finish, closing, tally)
    assert error.reason is Reason.TALLY_MISMATCH
    assert error.metadata["manifest_rows"] == "9"
    desk.finish(closing)
    assert desk.finish(closing) == []
    assert refusal(desk.record_finish, closing, tally).reason is Reason.STALE_FENCE


def test_a_job_cannot_finish_while_rows_miss_results():
    desk, _ = leased()
    desk.cancel_now(JOB)
    (closing,) = desk.lease()
    assert refusal(desk.finish, closing).reason is Reason.TALLY_MISMATCH


def test_a_finish_names_a_manifest_and_a_version():
    desk, lease = leased(10)
    desk.answer(lease)
    (closing,) = desk.lease()
    request = builders.finish(closing, builders.part(lease, set(range(10))).part.tally)
    request.output_data_version = b""
    assert refusal(desk.finish_with, request).reason is Reason.INVALID_ARGUMENT
    request.output_data_version = builders.SHA
    request.output_manifest_key = "elsewhere"
    assert refusal(desk.finish_with, request).reason is Reason.INVALID_ARGUMENT
    request.lease.fence = 1
    assert refusal(desk.finish_with, request).reason is Reason.STALE_FENCE


def test_other_weights_than_the_pinned_ones_are_refused() -> None:
    desk = Desk()
    job = desk.fill(builders.spec(), (5,))
    desk.record(jobs.seal_job(desk.state, builders.seal(job, 5), lambda _job: Admission(digest="d0")))
    (lease,) = desk.lease()
    assert lease.model_digest == "d0"
    error = refusal(desk.commit, builders.part(lease, {0}))
    assert error.reason is Reason.PART_INVALID
    right = builders.part(lease, {0})
    right.model_digest = "d0"
    assert desk.commit(right)

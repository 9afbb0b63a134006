"""Writers: one owns the end, and the end moves by compare-and-set."""

import pytest

from services.scheduler.core import views
from tests.scheduler import builders, recount
from tests.scheduler.desk import Desk
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import records_pb2

JOB = builders.job_name()


def receiving() -> Desk:
    desk = Desk()
    desk.create()
    desk.open_writer(JOB)
    return desk


def test_segments_move_the_end():
    desk = receiving()
    desk.commit_segment(builders.segment(JOB, 0, 7))
    desk.commit_segment(builders.segment(JOB, 7, 4))
    assert desk.job().end == 11
    assert desk.job().frontier == builders.frontier(11)
    assert desk.view().row_counts.total == 11
    recount.check(desk.state)


def test_the_last_segment_may_be_repeated_even_after_the_seal():
    desk = receiving()
    desk.commit_segment(builders.segment(JOB, 0, 7))
    desk.open_writer(JOB)
    assert desk.commit_segment(builders.segment(JOB, 0, 7)) == []
    desk.seal(builders.seal(JOB, 7))
    assert desk.commit_segment(builders.segment(JOB, 0, 7)) == []


def test_an_older_writer_is_superseded():
    desk = receiving()
    assert desk.open_writer(JOB) == 2
    error = refusal(desk.commit_segment, builders.segment(JOB, 0, 7, epoch=1))
    assert error.reason is Reason.WRITER_SUPERSEDED
    assert error.metadata["current_writer_epoch"] == "2"
    desk.commit_segment(builders.segment(JOB, 0, 7, epoch=2))


def test_nobody_writes_without_an_epoch():
    desk = Desk()
    desk.create()
    assert refusal(desk.commit_segment, builders.segment(JOB, 0, 7, epoch=0)).reason is Reason.WRITER_SUPERSEDED


@pytest.mark.parametrize("start", [6, 8, 0])
def test_a_segment_starts_at_the_end(start: int):
    desk = receiving()
    desk.commit_segment(builders.segment(JOB, 0, 7))
    error = refusal(desk.commit_segment, builders.segment(JOB, start, 2))
    assert error.reason is Reason.OFFSET_GAP
    assert error.metadata["next_offset"] == "7"


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0},
        {"key": "jobs/acme/other/input/x.parquet"},
        {"key": "jobs/acme/" + builders.ulid(1) + "/input/../../x"},
        {"sha256": b"short"},
        {"size_bytes": 0},
    ],
)
def test_nonsense_segments_are_refused(change: dict[str, object]):
    desk = receiving()
    request = builders.segment(JOB, 0, 7)
    for name, value in change.items():
        setattr(request.segment, name, value)
    assert refusal(desk.commit_segment, request).reason is Reason.INVALID_ARGUMENT
    assert desk.job().end == 0


def test_the_frontier_must_fit_the_rows():
    desk = receiving()
    request = builders.segment(JOB, 0, 7)
    request.merkle_frontier.pop()
    assert refusal(desk.commit_segment, request).violations[0].field == "merkle_frontier"


def test_a_sealed_job_takes_no_rows():
    desk = Desk()
    desk.queue()
    assert refusal(desk.commit_segment, builders.segment(JOB, 25, 1)).reason is Reason.JOB_NOT_RECEIVING
    error = refusal(desk.open_writer, JOB)
    assert error.reason is Reason.JOB_NOT_RECEIVING
    assert error.metadata["state"] == "QUEUED"


def test_segments_are_listed_by_row():
    desk = receiving()
    for start in range(0, 50, 10):
        desk.commit_segment(builders.segment(JOB, start, 10))
    starts = [segment.start for segment in views.list_segments(desk.state, JOB, 15, 2)]
    assert starts == [10, 20]
    assert [segment.start for segment in views.list_segments(desk.state, JOB, 50, 9)] == []
    covering = views.covering_segments(desk.state, JOB, 19, 12)
    assert [segment.start for segment in covering] == [10, 20, 30]
    assert isinstance(desk.view(), records_pb2.JobRecord)

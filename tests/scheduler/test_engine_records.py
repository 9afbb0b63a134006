"""What answered a job: the first engine's record, and no more promised than by the engine that promises least."""

import pytest

from services.scheduler.core import views
from tests.scheduler import builders
from tests.scheduler.desk import Desk
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2

UNKNOWN, PROMISED, NOT = (
    job_pb2.EQUAL_ANSWERS_UNSPECIFIED,
    job_pb2.EQUAL_ANSWERS_PROMISED,
    job_pb2.EQUAL_ANSWERS_NOT_PROMISED,
)


def answered(*promises: "job_pb2.EqualAnswers.ValueType") -> Desk:
    """A job of which one row each was answered by engines that promise this; their records are 0, 1, …"""
    desk = Desk()
    desk.queue(builders.spec(1), [len(promises) + 1])
    (lease,) = desk.lease()
    for number, promise in enumerate(promises):
        request = builders.part(lease, {number}, number=number)
        if promise:
            request.part.engine_record, request.part.equal_answers = bytes([number] * 32), promise
        desk.commit(request)
    return desk


@pytest.mark.parametrize(
    ("promises", "together"),
    [
        ((), UNKNOWN),
        ((UNKNOWN,), UNKNOWN),
        ((PROMISED,), PROMISED),
        ((PROMISED, PROMISED), PROMISED),
        ((PROMISED, NOT), NOT),
        ((NOT, PROMISED), NOT),
        ((UNKNOWN, PROMISED), PROMISED),
    ],
)
def test_a_job_promises_what_all_its_engines_promise(
    promises: "tuple[job_pb2.EqualAnswers.ValueType, ...]", together: int
) -> None:
    record = views.job_record(answered(*promises).state.jobs[builders.job_name(1)])
    assert record.equal_answers == together
    known = [number for number, promise in enumerate(promises) if promise]
    assert record.engine_record == (bytes([known[0]] * 32) if known else b"")


def test_parts_keep_the_record_of_their_engine() -> None:
    desk = answered(PROMISED, UNKNOWN, NOT)
    parts = views.list_parts(desk.state, builders.job_name(1), 0, 10)
    assert [(part.engine_record[:1], part.equal_answers) for part in parts] == [
        (b"\x00", PROMISED),
        (b"", UNKNOWN),
        (b"\x02", NOT),
    ]


def test_half_a_digest_is_refused() -> None:
    desk = Desk()
    desk.queue(builders.spec(1), [2])
    (lease,) = desk.lease()
    request = builders.part(lease, {0})
    request.part.engine_record = b"short"
    with pytest.raises(TidemillError, match="engine_record must have 32 bytes") as caught:
        desk.commit(request)
    assert caught.value.reason is Reason.PART_INVALID

"""Where promised work fills the time until its deadlines."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core.capacity import Capacity
from services.scheduler.core.demand import STEP_NS
from services.scheduler.core.tightness import RESERVED_CHUNKS, tight_until_ns
from services.scheduler.core.times import SECOND
from tests.scheduler import builders
from tests.scheduler.desk import Desk
from tests.scheduler.test_prospects import HOUR, LIMITS, backlog, job


def test_room_everywhere() -> None:
    assert tight_until_ns(backlog()) == 0
    assert tight_until_ns(backlog(job(1, rows=600))) == 0
    assert tight_until_ns(replace(backlog(job(1, rows=3500)), capacity=Capacity())) == 0


def test_single_jobs_have_slack_and_together_they_have_none() -> None:
    halves = [job(number, rows=1790, deadline=HOUR + number) for number in (1, 2)]
    assert tight_until_ns(backlog(halves[0])) == 0
    assert tight_until_ns(backlog(*halves)) == HOUR * SECOND + STEP_NS


def test_what_is_lost_already_hurries_nobody() -> None:
    assert tight_until_ns(backlog(job(1, rows=9000))) == 0


def test_promises_to_nobody_do_not_count() -> None:
    risky = replace(job(1, rows=3600), admitted_at_risk=True)
    assert tight_until_ns(backlog(risky)) == 0


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(120, 5 * HOUR)), max_size=12), st.integers(1, 4))
def test_it_is_the_last_deadline_without_a_reserve(each: list[tuple[int, int]], engines: int) -> None:
    jobs = [job(number, rows=rows, deadline=due) for number, (rows, due) in enumerate(each, 1)]
    reserve = RESERVED_CHUNKS * LIMITS.chunk_seconds
    tight = 0
    for end in sorted({one.deadline_ns // STEP_NS * STEP_NS + STEP_NS for one in jobs}):
        due = sum(one.end for one in jobs if one.deadline_ns < end) / engines
        if 0 <= end / SECOND - due < reserve:
            tight = end
    assert abs(tight_until_ns(backlog(*jobs, engines=engines)) - tight) <= 0


def test_a_crowded_job_goes_before_the_tenant_whose_turn_it_is() -> None:
    def first(tight: int) -> str:
        desk = Desk()
        desk.queue(builders.spec(1, tenant="greedy", deadline=90_000), rows=(400,))
        desk.queue(builders.spec(2, tenant="patient", deadline=900_000), rows=(400,))
        assert [lease.spec.tenant for lease in desk.lease()] == ["greedy"]
        (lease,) = desk.lease(offer=replace(builders.offer(), tight_until_ns=tight * SECOND))
        return lease.spec.tenant

    assert first(0) == "patient"
    assert first(89_000) == "patient"
    assert first(90_060) == "greedy"

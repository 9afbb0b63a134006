"""Where promised work fills the time until its deadlines."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core.capacity import Capacity
from services.scheduler.core.demand import STEP_NS
from services.scheduler.core.offers import Tightness
from services.scheduler.core.prospects import Backlog
from services.scheduler.core.records import Job
from services.scheduler.core.tightness import tightness
from services.scheduler.core.times import SECOND
from services.scheduler.core.urgency import RESERVED_CHUNKS
from tests.scheduler import builders
from tests.scheduler.builders import LOADED
from tests.scheduler.desk import Desk
from tests.scheduler.policy_cases import COLD, queue, teach
from tests.scheduler.test_prospects import HOUR, LIMITS, backlog, job


def until(*parts: Job, engines: int = 1) -> int:
    return tightness(backlog(*parts, engines=engines)).until_ns


def test_room_everywhere() -> None:
    assert tightness(backlog()) == Tightness()
    assert tightness(backlog(job(1, rows=600))) == Tightness()
    assert tightness(replace(backlog(job(1, rows=3500)), capacity=Capacity())) == Tightness()


def test_single_jobs_have_slack_and_together_they_have_none() -> None:
    halves = [job(number, rows=1790, deadline=HOUR + number) for number in (1, 2)]
    assert until(halves[0]) == 0
    assert until(*halves) == HOUR * SECOND + STEP_NS


def test_what_is_lost_already_hurries_nobody() -> None:
    assert until(job(1, rows=9000)) == 0


def test_promises_to_nobody_do_not_count() -> None:
    risky = replace(job(1, rows=3600), admitted_at_risk=True)
    assert until(risky) == 0


def test_going_from_model_to_model_takes_time_too() -> None:
    """Of two models an engine may have to load each; of an only one that is loaded, none."""

    def seen(rest: int) -> Tightness:
        rows = (HOUR - rest) // 2
        return tightness(backlog(job(1, rows=rows), job(2, rows=rows, model="big")))

    tight = HOUR * SECOND + STEP_NS
    assert seen(240) == Tightness()
    assert seen(140) == Tightness(tight)
    assert seen(100) == Tightness(tight, tight)
    assert tightness(backlog(job(1, rows=HOUR - 100))) == Tightness()


def test_a_model_that_nobody_has_loaded_takes_its_load() -> None:
    desk = backlog(job(1, rows=HOUR - 100))
    cold: Backlog = replace(desk, capacity=replace(desk.capacity, loaded={}))
    assert tightness(cold).strained_until_ns == HOUR * SECOND + STEP_NS


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(120, 5 * HOUR)), max_size=12), st.integers(1, 4))
def test_it_is_the_last_deadline_without_a_reserve(each: list[tuple[int, int]], engines: int) -> None:
    jobs = [job(number, rows=rows, deadline=due) for number, (rows, due) in enumerate(each, 1)]
    reserve = RESERVED_CHUNKS * LIMITS.chunk_seconds
    tight = 0
    for end in sorted({one.deadline_ns // STEP_NS * STEP_NS + STEP_NS for one in jobs}):
        due = sum(one.end for one in jobs if one.deadline_ns < end) / engines
        if 0 <= end / SECOND - due < reserve:
            tight = end
    assert tightness(backlog(*jobs, engines=engines)) == Tightness(tight, tight)


def test_a_crowded_job_goes_before_the_tenant_whose_turn_it_is() -> None:
    def first(tight: int) -> str:
        desk = Desk()
        desk.queue(builders.spec(1, tenant="greedy", deadline=90_000), rows=(400,))
        desk.queue(builders.spec(2, tenant="patient", deadline=900_000), rows=(400,))
        assert [lease.spec.tenant for lease in desk.lease()] == ["greedy"]
        (lease,) = desk.lease(offer=replace(builders.offer(), tightness=Tightness(tight * SECOND)))
        return lease.spec.tenant

    assert first(0) == "patient"
    assert first(89_000) == "patient"
    assert first(90_060) == "greedy"


def test_a_loaded_models_crowded_jobs_go_first_while_the_others_can_wait() -> None:
    def first(strained: int, deadline: int = 5000) -> str:
        desk = Desk()
        for number, model in enumerate(("tiny", "other")):
            teach(desk, model, 100 + number)
        queue(desk, builders.spec(1, model="other", deadline=deadline), 60)
        queue(desk, builders.spec(2, model="tiny", deadline=6000), 60)
        offer = builders.offer("w1", tiny=LOADED, other=COLD)
        (lease,) = desk.lease(offer=replace(offer, tightness=Tightness(7000 * SECOND, strained * SECOND)))
        return lease.spec.model

    assert first(0) == first(5000) == "tiny"
    assert first(5001) == "other"
    # It has a minute's work and a minute's load to go, and two chunks to wait for.
    assert first(0, deadline=1241) == "tiny"
    assert first(0, deadline=1239) == "other"

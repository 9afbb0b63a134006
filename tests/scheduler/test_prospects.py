"""Demand by deadline, ETAs and admission."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.core import admission
from services.scheduler.core.capacity import Capacity
from services.scheduler.core.demand import STEP_NS, Demand, claim_of
from services.scheduler.core.limits import Limits
from services.scheduler.core.paces import ModelPace
from services.scheduler.core.prospects import Backlog, Work, outlook, work_of
from services.scheduler.core.records import Job, Outlook, Seal, Tally, Terms
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from tests.scheduler import builders
from tidemill.v1 import job_pb2

HOUR = 3600
RATE = 100.0
LIMITS = Limits(admission_headroom=0.0)


def job(number: int, *, rows: int = 60, deadline: float = HOUR, tenant: str = "acme", model: str = "tiny") -> Job:
    """A queued job of `rows` rows that take an engine-second each (100 tokens)."""
    return Job(
        spec=builders.spec(number, tenant=tenant),
        name=builders.job_name(number, tenant),
        tenant=tenant,
        model=model,
        terms=Terms(int(deadline * SECOND)),
        state=job_pb2.JOB_STATE_QUEUED,
        revision=number,
        create_ns=0,
        end=rows,
        seal=Seal(rows, b"", "", "d", number, 0),
        next_cut=rows,
        row_tokens=100,
        row_tokens_p90=100,
    )


def backlog(*jobs: Job, engines: int = 1, now: float = 0.0, limits: Limits = LIMITS) -> Backlog:
    state = State(paces={model: ModelPace(10, RATE, 0.0, 20, 4, 600, 2000) for model in ("tiny", "big")})
    for each in jobs:
        state.put(each)
    everywhere = {"tiny": engines, "big": engines}
    return Backlog(state, Capacity(engines, everywhere, everywhere), limits, int(now * SECOND))


def work(rows: int, deadline: float, tenant: str = "acme", model: str = "tiny") -> Work:
    return Work(tenant, model, int(deadline * SECOND), rows * 100, rows * 100, 2.0)


jobs = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.integers(0, 500),
        st.floats(60, 9 * HOUR),
        st.sampled_from("ab"),
        st.booleans(),
        st.booleans(),
    ),
    max_size=30,
)


@given(jobs)
def test_demand_equals_a_recount(changes: list[tuple[int, int, float, str, bool, bool]]) -> None:
    demand, last = Demand(), dict[str, Job]()
    for number, rows, deadline, tenant, at_risk, sealed in changes:
        each = replace(job(number, rows=rows, deadline=deadline, tenant=tenant), admitted_at_risk=at_risk)
        each = each if sealed else replace(each, seal=None)
        demand.set(each)
        last[each.name] = each
    claims = [claim for each in last.values() if (claim := claim_of(each))]
    for curve, members in (
        (demand.everything, claims),
        (demand.firm, [claim for claim in claims if claim.firm]),
        *((curve, [claim for claim in claims if claim.tenant == tenant]) for tenant, curve in demand.tenants.items()),
    ):
        expected = Counter[tuple[int, str]]()
        for claim in members:
            expected[claim.step, claim.model] += claim.tokens.p90
        assert {(step, model): n for step, each in curve.p90.items() for model, n in each.items()} == dict(expected)
        assert curve.steps == sorted({claim.step for claim in members})
    assert set(demand.tenants) == {claim.tenant for claim in claims}


def test_what_misses_no_row_or_does_not_run_claims_nothing() -> None:
    assert claim_of(job(1)) is not None
    assert claim_of(replace(job(1), tally=Tally(succeeded=60))) is None
    assert claim_of(replace(job(1), state=job_pb2.JOB_STATE_PAUSED)) is None
    assert claim_of(replace(job(1), seal=None)) is None


def test_a_lone_job_ends_after_its_own_work() -> None:
    eta = backlog(engines=4).eta(work(600, HOUR))
    assert eta is not None
    assert eta.engine_seconds == pytest.approx(600)
    assert eta.p50_ns == pytest.approx(150 * SECOND)
    assert eta.start_ns == 0


def test_a_cold_model_adds_its_load() -> None:
    cold = backlog()
    capacity = replace(cold.capacity, loaded={}, load_seconds={"tiny": 33.0})
    eta = replace(cold, capacity=capacity).eta(work(60, HOUR))
    assert eta is not None
    assert eta.p50_ns == pytest.approx(93 * SECOND)


def test_another_tenants_work_halves_the_share_until_it_is_done() -> None:
    big = backlog(job(1, rows=10_000, deadline=9 * HOUR, tenant="other"))
    eta = big.eta(work(600, 9 * HOUR))
    assert eta is not None
    assert eta.p50_ns == pytest.approx(1200 * SECOND)
    small = backlog(job(1, rows=60, deadline=9 * HOUR, tenant="other")).eta(work(600, 9 * HOUR))
    assert small is not None
    assert small.p50_ns == pytest.approx(660 * SECOND)


def test_nothing_is_told_without_a_rate_or_a_worker() -> None:
    known = backlog(job(1))
    assert replace(known, capacity=Capacity()).eta(work(1, HOUR)) is None
    known.state.paces.clear()
    assert known.eta(work(1, HOUR)) is None
    assert admission.judge(known, work(10**9, HOUR)).feasible


@settings(max_examples=200)
@given(jobs=jobs, rows=st.integers(1, 2000), deadline=st.floats(120, 9 * HOUR), engines=st.integers(1, 4))
def test_admission_is_edf_feasibility(
    jobs: list[tuple[int, int, float, str, bool, bool]], rows: int, deadline: float, engines: int
) -> None:
    firm = {number: job(number, rows=n, deadline=by) for number, n, by, _, at_risk, _ in jobs if n and not at_risk}
    desk = backlog(*firm.values(), engines=engines)
    verdict = admission.judge(desk, work(rows, deadline))
    due = sorted((each.deadline_ns // STEP_NS * STEP_NS, each.end) for each in firm.values())
    if any(sum(n for by, n in due if by <= until) * SECOND / engines > until for until, _ in due):
        return  # what was accepted does not fit by itself: see the test below
    earliest = verdict.earliest_ns
    total = sum(n for by, n in due if by <= earliest) + rows
    slack = STEP_NS + SECOND
    assert total * SECOND / engines <= earliest + slack
    for until, _ in due:
        if until >= earliest:
            assert (sum(n for by, n in due if by <= until) + rows) * SECOND / engines <= until + slack
    assert verdict.feasible == (earliest <= int(deadline * SECOND))


def test_a_deadline_behind_an_overfull_stretch_is_still_feasible() -> None:
    desk = backlog(job(1, rows=2 * HOUR, deadline=HOUR))
    verdict = admission.judge(desk, work(60, 3 * HOUR))
    assert verdict.feasible
    assert not admission.judge(desk, work(60, HOUR / 2)).feasible


def test_promises_to_nobody_do_not_stand_in_the_way() -> None:
    at_risk = replace(job(1, rows=HOUR, deadline=HOUR), admitted_at_risk=True)
    assert admission.judge(backlog(at_risk), work(1800, HOUR)).feasible
    assert not admission.judge(backlog(job(1, rows=HOUR, deadline=HOUR)), work(1800, HOUR)).feasible


def test_the_refusal_names_the_earliest_deadline() -> None:
    verdict = admission.judge(backlog(job(1, rows=HOUR, deadline=HOUR + 60)), work(1800, HOUR))
    error = admission.infeasible("tenants/acme/jobs/1", verdict, HOUR * SECOND)
    assert error.metadata["earliest_feasible_time"] >= "1970-01-01T01:30:00Z"
    assert verdict.earliest_ns < 2 * HOUR * SECOND


def test_outlooks() -> None:
    desk = backlog(job(1, rows=1800))
    assert outlook(desk, desk.state.jobs[builders.job_name(1)]).state == job_pb2.SLA_STATE_ON_TRACK
    late = job(2, rows=5000)
    crowded = backlog(late)
    assert outlook(crowded, late).state == job_pb2.SLA_STATE_AT_RISK
    assert outlook(replace(crowded, now_ns=HOUR * SECOND), late).state == job_pb2.SLA_STATE_BREACHED
    blind = replace(desk, capacity=Capacity())
    assert outlook(blind, job(1)) == Outlook(job_pb2.SLA_STATE_ON_TRACK)
    assert outlook(replace(blind, now_ns=HOUR * SECOND * 6 // 10), job(1)).state == job_pb2.SLA_STATE_AT_RISK


def test_an_outlook_does_not_flutter() -> None:
    desk = backlog()
    narrow = job(1, rows=3500)
    assert outlook(desk, narrow).state == job_pb2.SLA_STATE_ON_TRACK
    risky = replace(narrow, outlook=Outlook(job_pb2.SLA_STATE_AT_RISK))
    assert outlook(desk, risky).state == job_pb2.SLA_STATE_AT_RISK
    assert outlook(desk, replace(risky, tally=Tally(succeeded=200))).state == job_pb2.SLA_STATE_ON_TRACK


def test_the_rest_of_a_job_is_what_misses_results() -> None:
    rest = work_of(replace(job(1), tally=Tally(succeeded=20)), LIMITS)
    assert (rest.tokens_p50, rest.job, rest.weight) == (4000, builders.job_name(1), 2.0)


def test_a_job_does_not_stand_in_its_own_way() -> None:
    alone = job(1, rows=1800, deadline=HOUR)
    desk = backlog(alone)
    assert admission.judge(desk, work_of(alone, LIMITS)).earliest_ns == 1800 * SECOND
    assert admission.judge(desk, work(1801, HOUR)).earliest_ns > HOUR * SECOND

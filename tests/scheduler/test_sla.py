"""Outlooks as events, escalation, quotas and what-if, through the scheduler's calls."""

from dataclasses import replace

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core import sla
from services.scheduler.core.limits import Limits
from services.scheduler.core.quotas import Quota, Quotas
from services.scheduler.core.records import Job, Outlook, Terms
from services.scheduler.core.times import SECOND, from_timestamp
from services.scheduler.quota_settings import read_quotas
from tests.scheduler import builders
from tests.scheduler.fake_clock import FakeClock
from tests.scheduler.service_desk import CONTEXT, ServiceDesk, running, until
from tests.scheduler.test_prospects import backlog, job
from tests.scheduler.test_service import refused
from tidemill.errors import Reason
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

HOUR = 3600
DAY = 24 * HOUR


def terms(deadline: float, *, raise_class: bool = False, more_parallelism: bool = False) -> Terms:
    return Terms(int(deadline * SECOND), raise_class=raise_class, more_parallelism=more_parallelism)


def kinds(events: sla.Events) -> list[str | None]:
    return [event.WhichOneof("payload") for event in events]


def test_the_first_review_writes_the_outlook_and_the_next_is_silent() -> None:
    fresh = job(1, rows=600)
    (event,) = sla.review(backlog(fresh), fresh)
    assert event.sla_changed.state == job_pb2.SLA_STATE_ON_TRACK
    p50 = from_timestamp(event.sla_changed.eta_p50_time)
    assert p50 == pytest.approx(600 * SECOND)
    known = replace(fresh, outlook=Outlook(event.sla_changed.state, p50, p50))
    assert sla.review(backlog(known, now=1.0), known) == []
    assert kinds(sla.review(backlog(known, now=120.0), known)) == ["sla_changed"]


def test_nothing_is_written_of_a_job_that_does_not_run() -> None:
    unsealed = replace(job(1), seal=None)
    assert sla.review(backlog(unsealed), unsealed) == []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, None),
        ({"raise_class": True}, (job_pb2.SERVICE_CLASS_URGENT, 1)),
        ({"more_parallelism": True}, (job_pb2.SERVICE_CLASS_UNSPECIFIED, 2)),
        ({"raise_class": True, "more_parallelism": True}, (job_pb2.SERVICE_CLASS_URGENT, 2)),
    ],
)
def test_escalation_does_what_the_owner_allows_once(flags: dict[str, bool], expected: tuple[int, int] | None) -> None:
    late = replace(job(1, rows=5000), terms=terms(HOUR, **flags))
    events = [event for event in sla.review(backlog(late), late) if event.HasField("job_escalated")]
    assert [(e.job_escalated.service_class, e.job_escalated.parallelism) for e in events] == (
        [expected] if expected else []
    )
    if expected:
        raised = replace(late, raised_class=events[0].job_escalated.service_class, parallelism=expected[1])
        assert "job_escalated" not in kinds(sla.review(backlog(raised), raised))


def test_an_urgent_job_has_nothing_above_it() -> None:
    late = replace(
        job(1, rows=5000), terms=replace(terms(HOUR, raise_class=True), service_class=job_pb2.SERVICE_CLASS_URGENT)
    )
    assert kinds(sla.review(backlog(late), late)) == ["sla_changed"]


@given(now=st.integers(0, 2 * DAY), eta=st.integers(0, 2 * DAY), deadline=st.integers(60, DAY))
def test_the_next_review_comes_soon_and_not_after_the_deadline(now: int, eta: int, deadline: int) -> None:
    each: Job = replace(
        job(1, deadline=deadline), outlook=Outlook(job_pb2.SLA_STATE_ON_TRACK, eta * SECOND, eta * SECOND)
    )
    due = sla.next_review_ns(each, now * SECOND)
    assert now * SECOND < due <= now * SECOND + sla.LATEST_NS
    if now < deadline:
        assert due <= deadline * SECOND


async def teach(desk: ServiceDesk, seconds: float = 1.0) -> None:
    """Let a first job of 30 rows give the model a rate of 50 tokens a second: 5 tokens a row, ten rows a `seconds`."""
    name = await desk.queue(builders.spec(90), rows=30)
    while leases := await desk.lease():
        request = builders.part(leases[0], set(range(leases[0].chunk_rows))) if leases[0].chunk_rows else None
        if request is None:
            break
        request.busy_seconds = seconds
        await desk.commit(request)
    assert (await desk.rpc.GetJob(pb.GetJobRequest(job=name), CONTEXT)).row_counts.succeeded == 30


async def seal_of(desk: ServiceDesk, number: int, rows: int, deadline: int, *, at_risk: bool = False):
    spec = builders.spec(number, deadline=deadline)
    spec.accept_at_risk = at_risk
    await desk.rpc.CreateJob(pb.CreateJobRequest(spec=spec), CONTEXT)
    await desk.rpc.OpenWriter(pb.OpenWriterRequest(job=spec.name), CONTEXT)
    segment = builders.segment(spec.name, 0, rows)
    segment.segment.text_bytes = 12 * rows
    segment.segment.max_output_tokens = 2 * rows
    await desk.rpc.CommitSegment(segment, CONTEXT)
    return await desk.rpc.SealJob(builders.seal(spec.name, rows), CONTEXT)


async def test_a_deadline_that_cannot_hold_is_refused_with_the_earliest_that_can() -> None:
    time = FakeClock()
    async with running(time=time) as desk:
        now = int(time.wall)
        await teach(desk)
        error = await refused(seal_of(desk, 1, 10_000, now + 120))
        assert error.reason is Reason.DEADLINE_INFEASIBLE
        assert error.metadata["earliest_feasible_time"] > error.metadata["complete_by_time"]
        record = await desk.rpc.GetJob(pb.GetJobRequest(job=builders.job_name(1)), CONTEXT)
        assert record.state == job_pb2.JOB_STATE_RECEIVING
        risky = await seal_of(desk, 2, 10_000, now + 120, at_risk=True)
        assert (risky.admitted_at_risk, risky.sla_state) == (True, job_pb2.SLA_STATE_AT_RISK)
        fine = await seal_of(desk, 3, 10_000, now + DAY)
        assert (fine.admitted_at_risk, fine.sla_state) == (False, job_pb2.SLA_STATE_ON_TRACK)
        assert fine.eta_p50_time.seconds > now


async def test_a_new_deadline_is_judged_as_a_first_one_is() -> None:
    time = FakeClock()
    async with running(time=time) as desk:
        await teach(desk)
        name = (await seal_of(desk, 1, 10_000, int(time.wall) + DAY)).spec.name
        sooner = pb.UpdateJobRequest(job=name)
        sooner.complete_by_time.seconds = int(time.wall) + 120
        error = await refused(desk.rpc.UpdateJob(sooner, CONTEXT))
        assert error.reason is Reason.DEADLINE_INFEASIBLE
        sooner.accept_at_risk = True
        risky = await desk.rpc.UpdateJob(sooner, CONTEXT)
        assert (risky.admitted_at_risk, risky.complete_by_time.seconds) == (True, int(time.wall) + 120)
        later = pb.UpdateJobRequest(job=name)
        later.complete_by_time.seconds = int(time.wall) + 2 * DAY
        assert not (await desk.rpc.UpdateJob(later, CONTEXT)).admitted_at_risk


async def test_a_risk_that_is_taken_back_is_judged() -> None:
    time = FakeClock()
    async with running(time=time) as desk:
        await teach(desk)
        name = (await seal_of(desk, 1, 10_000, int(time.wall) + 120, at_risk=True)).spec.name
        request = pb.UpdateJobRequest(job=name, accept_at_risk=False)
        assert (await refused(desk.rpc.UpdateJob(request, CONTEXT))).reason is Reason.DEADLINE_INFEASIBLE
        record = await desk.rpc.GetJob(pb.GetJobRequest(job=name), CONTEXT)
        assert record.admitted_at_risk


async def test_estimates_have_bounds() -> None:
    async with running() as desk:
        await teach(desk, seconds=1000.0)
        spec = builders.spec(5, deadline=DAY)
        spec.sampling.max_tokens = 2**31 - 1
        request = pb.EstimateJobRequest(spec=spec, row_count=10**10, output_tokens_per_row=10**6)
        answer = (await desk.rpc.EstimateJob(request, CONTEXT)).estimate
        assert not answer.feasible
        assert answer.eta_p90_time.seconds > 9 * 365 * DAY


async def test_an_outlook_turns_with_time_and_watchers_hear_of_it() -> None:
    time = FakeClock()
    async with running(time=time) as desk:
        await teach(desk)
        now = int(time.wall)
        name = (await seal_of(desk, 1, 1000, now + HOUR)).spec.name
        time.advance(HOUR + 1)

        async def breached() -> bool:
            desk.scheduler.timer.poke()
            record = await desk.rpc.GetJob(pb.GetJobRequest(job=name), CONTEXT)
            return record.sla_state == job_pb2.SLA_STATE_BREACHED

        await until(breached)


async def test_estimates_of_imagined_and_real_jobs() -> None:
    time = FakeClock()
    async with running(time=time) as desk:
        spec = builders.spec(5, deadline=int(time.wall) + HOUR)
        request = pb.EstimateJobRequest(spec=spec, row_count=1000, prompt_tokens_per_row=3, output_tokens_per_row=2)
        blind = (await desk.rpc.EstimateJob(request, CONTEXT)).estimate
        assert not blind.HasField("eta_p50_time")
        assert "no live worker" in blind.basis
        await teach(desk)
        seen = (await desk.rpc.EstimateJob(request, CONTEXT)).estimate
        assert seen.feasible
        assert seen.engine_seconds == pytest.approx(100, rel=0.05)
        assert seen.start_time.seconds <= seen.eta_p50_time.seconds <= seen.eta_p90_time.seconds
        real = await seal_of(desk, 6, 1000, int(time.wall) + HOUR)
        again = (await desk.rpc.EstimateJob(pb.EstimateJobRequest(job=real.spec.name), CONTEXT)).estimate
        assert again.engine_seconds == pytest.approx(100, rel=0.05)
        error = await refused(desk.rpc.EstimateJob(pb.EstimateJobRequest(spec=spec), CONTEXT))
        assert error.violations[0].field == "row_count"


async def test_quotas_refuse_with_the_limit_and_the_remedy() -> None:
    quotas = Quotas(tenants={"acme": Quota(jobs=2, rows=50, tokens=10**6)})
    async with running(quotas=quotas) as desk:
        await desk.queue(builders.spec(1, request_id="one"), rows=40)
        await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec(2)), CONTEXT)
        error = await refused(desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec(3)), CONTEXT))
        assert (error.reason, error.metadata["quota"], error.metadata["limit"]) == (Reason.QUOTA_EXCEEDED, "jobs", "2")
        assert error.retry_after is not None
        # A repeated call creates nothing, and another tenant has limits of its own.
        await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec(9, request_id="one")), CONTEXT)
        await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec(3, tenant="other")), CONTEXT)
        second = builders.job_name(2)
        await desk.rpc.OpenWriter(pb.OpenWriterRequest(job=second), CONTEXT)
        error = await refused(desk.rpc.CommitSegment(builders.segment(second, 0, 11), CONTEXT))
        assert (error.metadata["quota"], error.metadata["held"], error.metadata["wanted"]) == ("rows", "40", "51")
        await desk.rpc.CommitSegment(builders.segment(second, 0, 10), CONTEXT)


async def test_token_quotas_count_at_the_seal() -> None:
    quotas = Quotas(default=Quota(tokens_per_day=200))
    async with running(quotas=quotas) as desk:
        error = await refused(desk.queue(builders.spec(1), rows=10))
        assert (error.metadata["quota"], "split the job" in error.message) == ("tokens_per_day", True)
    async with running(quotas=Quotas(default=Quota(tokens=5000))) as desk:
        await desk.queue(builders.spec(1), rows=10)
        error = await refused(desk.queue(builders.spec(2), rows=10))
        assert error.metadata["quota"] == "tokens"


def test_quotas_are_read_from_json() -> None:
    quotas = read_quotas('{"*": {"jobs": 3}, "acme": {"rows": 7, "chunks": 2}}')
    assert quotas.of("anyone") == Quota(jobs=3)
    assert quotas.of("acme") == Quota(rows=7, chunks=2)
    assert read_quotas("").of("acme") == Quota()


@pytest.mark.parametrize(
    "text", ["{", '{"acme": {"row": 1}}', '{"acme": {"rows": -1}}', '{"acme": {"rows": "1"}}', '{"A B": {}}']
)
def test_quotas_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_quotas(text)


def test_limits_give_the_class_its_weight() -> None:
    limits = Limits()
    weights = [limits.weight(each) for each in job_pb2.ServiceClass.values()]
    assert weights == [2.0, 4.0, 2.0, 1.0]


async def test_the_accuracy_of_etas_is_recorded_and_told() -> None:
    time = FakeClock()
    async with running(time=time) as desk:
        await teach(desk)
        before = sample("tidemill_scheduler_eta_jobs_total", within_p90="true")
        met = sample("tidemill_scheduler_deadlines_total", met="true")
        name = (await seal_of(desk, 1, 20, int(time.wall) + HOUR)).spec.name
        time.advance(1)
        await desk.answer_all(name)
        assert sample("tidemill_scheduler_eta_jobs_total", within_p90="true") == before + 1
        assert sample("tidemill_scheduler_deadlines_total", met="true") >= met + 1
        again = (await desk.rpc.EstimateJob(pb.EstimateJobRequest(job=name), CONTEXT)).estimate
        assert "1 of 1 jobs of the model ended by the 90th percentile" in again.basis


def sample(name: str, **labels: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name, {"model": "tiny", **labels}) or 0.0

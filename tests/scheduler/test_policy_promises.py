"""What the policy promises: bounded gaps, nothing starved, drained models left alone, and choices that scan nothing."""

import sys
from dataclasses import replace
from types import FrameType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core.leasing import Requeue
from services.scheduler.core.limits import Limits
from services.scheduler.core.policy import next_work
from services.scheduler.core.records import LeaseKind
from services.scheduler.core.slack import latest_start_ns
from tests.scheduler import builders
from tests.scheduler.builders import LOADED
from tests.scheduler.desk import FAILED, RELEASED, Desk
from tests.scheduler.policy_cases import CLASSES, COLD, MODELS, QUIET, TENANTS, answer, desks, drain, queue, teach
from tidemill.internal.v1 import scheduler_service_pb2 as pb


@QUIET
@given(data=st.data(), classes=st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)))
def test_the_gap_between_two_backlogged_tenants_is_bounded(data: st.DataObject, classes: tuple[Any, Any]):
    """I8: weighted service since both had work differs by at most two charges of all that they may have in flight."""
    limits = Limits(chunk_rows=data.draw(st.integers(1, 12)), max_leases=6, urgent_slack=0.0)
    desk = Desk(limits)
    for number, (tenant, service_class) in enumerate(zip(("acme", "beta"), classes, strict=True), 1):
        for job in range(3):
            spec = builders.spec(10 * number + job, tenant=tenant, deadline=10**9)
            spec.service_class = service_class
            queue(desk, spec, 500)
    served: dict[str, float] = {"acme": 0.0, "beta": 0.0}
    weights: dict[str, float] = dict(zip(TENANTS[:2], (limits.weight(each) for each in classes), strict=True))
    held: list[pb.Lease] = []
    bound = 2 * limits.max_leases * limits.chunk_rows * 5 / min(weights.values())
    for _ in range(60):
        held += desk.lease(data.draw(st.integers(0, 3)))
        if held and data.draw(st.booleans()):
            lease = held.pop(data.draw(st.integers(0, len(held) - 1)))
            answer(desk, lease)
            served[lease.spec.tenant] += 5 * lease.chunk_rows / weights[lease.spec.tenant]
            assert abs(served["acme"] - served["beta"]) <= bound


def test_classes_are_weights():
    desk = Desk(Limits(chunk_rows=1))
    for number, (tenant, service_class) in enumerate(zip(TENANTS, CLASSES, strict=True), 1):
        spec = builders.spec(number, tenant=tenant, deadline=10**9)
        spec.service_class = service_class
        queue(desk, spec, 1000)
    counts = dict.fromkeys(TENANTS, 0)
    for _ in range(350):
        (lease,) = desk.lease()
        answer(desk, lease)
        counts[lease.spec.tenant] += 1
    assert 180 <= counts["acme"] <= 220
    assert 90 <= counts["beta"] <= 110
    assert 40 <= counts["corp"] <= 60


@QUIET
@given(desk=desks())
def test_every_eligible_chunk_is_leased_in_the_end(desk: Desk):
    """I9: with nothing new, one worker with one resident model works everything off, each chunk once."""
    desk.limits = replace(desk.limits, max_leases=1)
    rows = sum(job.missing for job in desk.state.jobs.values())
    resident = "tiny"
    for _ in range(rows):
        offer = builders.offer("w1", **{model: LOADED if model == resident else COLD for model in MODELS})
        leases = [lease for lease in desk.lease(1, offer) if lease.kind == pb.LEASE_KIND_CHUNK]
        if not leases:
            break
        resident = leases[0].spec.model
        answer(desk, leases[0])
        desk.now += 1
        while desk.state.closing:
            desk.finish(desk.lease(1, offer)[0])
    assert all(job.results == job.end for job in desk.state.jobs.values())


def test_a_drained_model_gets_no_lease_and_its_drain_ends():
    """I11: closing tasks still run, open leases go on, and undraining brings the work back."""
    desk = Desk(Limits(chunk_rows=10))
    small = queue(desk, builders.spec(1), 10)
    queue(desk, builders.spec(2), 30)
    (lease,) = desk.lease()
    assert lease.spec.name == small
    drain(desk, "tiny")
    assert desk.lease() == []
    answer(desk, lease)
    (closing,) = desk.lease()
    assert closing.kind == pb.LEASE_KIND_FINALISE
    desk.finish(closing)
    assert desk.lease() == []
    drain(desk, "tiny", drained=False)
    assert len(desk.lease(5)) == 3


def test_a_chunk_whose_time_lies_ahead_is_passed_over():
    desk = Desk(Limits(chunk_rows=10))
    desk.queue(rows=[20])
    first, second = desk.lease(2)
    desk.release(first, Requeue(FAILED))
    desk.release(second, Requeue(RELEASED))
    assert [lease.chunk_start for lease in desk.lease(5)] == [10]
    desk.now += 1
    assert [lease.chunk_start for lease in desk.lease(5)] == [0]


def test_escalation_raises_the_cap_of_its_job():
    desk = Desk(Limits(chunk_rows=1, max_leases_per_job=2))
    job = desk.queue(rows=[30])
    assert len(desk.lease(9)) == 2
    desk.state.put(replace(desk.state.jobs[job], parallelism=2))
    assert len(desk.lease(9)) == 2


class Steps:
    """Counts the interpreter's instructions in a block: how much a choice looks at, whatever the machine does."""

    def __init__(self) -> None:
        self.count = 0
        self._before: Any = None

    def __enter__(self) -> "Steps":
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        self.count += event == "opcode"
        return self._trace


def crowded(jobs: int, deadline: int) -> Desk:
    desk = Desk(Limits(chunk_rows=10))
    teach(desk, "tiny", 0)
    for number in range(1, jobs + 1):
        due = deadline + number % 997
        spec = builders.spec(number, tenant=f"t{number % 5}", model=MODELS[number % 3], deadline=due)
        queue(desk, spec, 20)
    return desk


def test_a_choice_looks_at_a_bounded_number_of_jobs():
    """Calm, all urgent, all doomed: ten times the jobs cost no more steps."""
    for deadline, now in ((10**8, 1000.0), (3000, 2990.0), (2000, 50_000.0)):
        steps: list[int] = []
        for jobs in (300, 2000):
            desk = crowded(jobs, deadline)
            desk.now = now
            offer = builders.offer("w1", tiny=LOADED, other=COLD, third=COLD)
            with Steps() as counted:
                work = next_work(desk.state, offer, desk.limits, desk.now_ns)
            assert work is not None
            assert work.kind is LeaseKind.CHUNK
            steps.append(counted.count)
        assert steps[1] < 30_000
        assert steps[1] <= 1.5 * steps[0] + 1000, steps


def test_latest_starts_follow_the_pace_without_a_scan():
    desk = Desk(Limits(chunk_rows=10))
    waiting = [queue(desk, builders.spec(number, tenant="beta", deadline=10**6), 100) for number in range(1, 6)]
    queue(desk, builders.spec(9, deadline=10**5), 1000)
    for _ in range(20):
        (lease,) = [lease for lease in desk.lease(2) if lease.spec.tenant == "acme"][:1] or desk.lease()
        answer(desk, lease)
    starts = {name: start for start, _, name in desk.state.ready.starting_from("tiny", 0, 100)}
    for name in waiting:
        if name in starts:
            job = desk.state.jobs[name]
            fresh = latest_start_ns(job, desk.state.paces["tiny"], len(desk.state.busy))
            assert abs(starts[name] - fresh) < 0.2 * (job.deadline_ns - fresh)

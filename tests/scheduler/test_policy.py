"""Who runs next: against a twin that scans everything, and tier by tier."""

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core.leasing import Requeue
from services.scheduler.core.limits import Limits
from services.scheduler.core.offers import Offer
from tests.scheduler import builders, recount
from tests.scheduler.builders import LOADED
from tests.scheduler.desk import RELEASED, Desk
from tests.scheduler.policy_cases import COLD, MODELS, QUIET, answer, desks, drain, offers, queue, teach
from tests.scheduler.policy_twin import Twin
from tidemill.internal.v1 import scheduler_service_pb2 as pb


@QUIET
@given(desk=desks(), data=st.data())
def test_every_choice_is_the_twins(desk: Desk, data: st.DataObject):
    """I6, I7, I11 and the order of tiers: leases, answers and returns in any order, with drains between."""
    held: list[pb.Lease] = []
    for _ in range(data.draw(st.integers(5, 25))):
        desk.now += data.draw(st.sampled_from([0.0, 1.0, 15.0]))
        match data.draw(st.sampled_from(["lease", "lease", "lease", "answer", "return", "drain"])):
            case "answer" if held:
                answer(desk, held.pop(data.draw(st.integers(0, len(held) - 1))))
            case "return" if held:
                desk.release(held.pop(), Requeue(RELEASED))
            case "drain":
                drain(
                    desk,
                    data.draw(st.sampled_from(sorted({job.model for job in desk.state.jobs.values()}))),
                    data.draw(st.booleans()),
                )
            case _:
                offer = data.draw(offers())
                if desk.state.closing:
                    closing = desk.lease(1, offer)
                    desk.finish(closing[0])
                    continue
                # The index holds guesses of the latest starts; here they are brought up to date.
                for model in MODELS:
                    desk.state.refresh_starts(model, 100)
                expected = Twin(desk.state, offer, desk.limits, desk.now_ns).choice()
                leases = desk.lease(1, offer)
                assert [lease.spec.name for lease in leases] == ([expected.name] if expected else [])
                held += leases
    recount.check(desk.state, desk.limits)
    assert recount.summary(desk.replayed())["accounts"] == vars(desk.state.accounts)


def test_a_job_short_of_slack_overtakes_and_one_that_is_doomed_does_not():
    desk = Desk(Limits(chunk_rows=10))
    teach(desk, "tiny", 100)
    desk.now = 2000.0
    calm = queue(desk, builders.spec(1, deadline=90_000), 100)
    # 100 rows of 5 tokens at 5 tokens a second: 100 s of work.
    short = queue(desk, builders.spec(2, tenant="beta", deadline=3100), 100)
    doomed = queue(desk, builders.spec(3, tenant="corp", deadline=2050), 100)
    first = desk.lease(3)
    assert {lease.spec.name for lease in first} == {calm, short, doomed}
    desk.now = 2900.0
    assert [lease.spec.name for lease in desk.lease(3)] == [short] * 3
    desk.now = 3050.0
    # Now it is doomed as well: it waits for its turn like the others, and still gets it.
    assert {lease.spec.name for lease in desk.lease(9)} == {calm, short, doomed}


def test_among_urgent_jobs_the_earliest_deadline_goes_first():
    desk = Desk(Limits(chunk_rows=10))
    teach(desk, "tiny", 100)
    desk.now = 2000.0
    later = queue(desk, builders.spec(1, deadline=3000), 10)
    sooner = queue(desk, builders.spec(2, tenant="beta", deadline=2990), 10)
    desk.now = 2950.0
    assert [lease.spec.name for lease in desk.lease(2)] == [sooner, later]


def test_slack_counts_the_measured_loading():
    desk = Desk(Limits(chunk_rows=10, urgent_slack=0.1, max_cleanups=0))
    teach(desk, "tiny", 100)
    desk.now = 2000.0
    here = queue(desk, builders.spec(1, deadline=90_000), 100)
    there = queue(desk, builders.spec(2, tenant="beta", model="other", deadline=12_000), 10)
    desk.now = 10_700.0
    models = {"tiny": LOADED, "other": COLD}
    assert [lease.spec.name for lease in desk.lease(1, Offer("w1", models, {"other": 5.0}))] == [here]
    assert [lease.spec.name for lease in desk.lease(1, Offer("w1", models, {"other": 600.0}))] == [there]


def test_the_valve_opens_when_a_tenant_is_owed_more_than_the_loading_is_worth():
    desk = Desk(Limits(chunk_rows=10, owed_seconds=100.0))
    for number, model in enumerate(("tiny", "other")):
        teach(desk, model, 100 + number)
    queue(desk, builders.spec(1, deadline=10**8), 10_000)
    queue(desk, builders.spec(2, tenant="beta", model="other", deadline=10**8), 10_000)
    offer = Offer("w1", {"tiny": LOADED, "other": COLD}, {"other": 30.0})
    seconds = 0.0
    while (lease := desk.lease(1, offer)[0]).spec.model == "tiny":
        answer(desk, lease)
        seconds += lease.chunk_rows
    # 100 s for a load of 60 s make 50 s for one of 30 s; a chunk is 10 s.
    assert 50 < seconds <= 70


def test_a_tenant_that_comes_back_does_not_collect_its_absence():
    desk = Desk(Limits(chunk_rows=10))
    queue(desk, builders.spec(1), 1000)
    for _ in range(20):
        answer(desk, desk.lease()[0])
    queue(desk, builders.spec(2, tenant="beta"), 1000)
    shares = [desk.lease()[0].spec.tenant for _ in range(20)]
    assert 8 <= shares.count("beta") <= 12

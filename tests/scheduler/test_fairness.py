"""Accounts: charged by estimate, settled by what was, refunded for what was not; and who is next."""

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core.fairness import Accounts
from services.scheduler.core.leasing import EXPIRED, Requeue
from services.scheduler.core.limits import Limits
from tests.scheduler import builders, recount
from tests.scheduler.desk import RELEASED, Desk
from tests.scheduler.policy_cases import answer, queue
from tidemill.v1 import job_pb2


def test_a_lease_is_charged_by_estimate_and_settled_by_the_tally():
    desk = Desk(Limits(chunk_rows=10))
    job = desk.queue(rows=[100])
    (lease,) = desk.lease()
    # 10 rows of 256 + 128 tokens by guess, at half price.
    assert desk.state.accounts.tokens == {"acme": 1920}
    desk.commit(builders.part(lease, {0, 1, 2, 3}))
    # 4 rows took 5 tokens each; the charge of the other six stands.
    assert desk.state.accounts.tokens == {"acme": 1920 * 6 // 10 + 10}
    desk.answer(lease)
    assert desk.state.accounts.tokens == {"acme": 25}
    assert job not in desk.state.leases_of
    recount.check(desk.state)


def test_undone_work_is_refunded_however_it_ends():
    for requeue in (EXPIRED, Requeue(RELEASED)):
        desk = Desk(Limits(chunk_rows=10))
        desk.queue(rows=[100])
        (lease,) = desk.lease()
        desk.commit(builders.part(lease, {0, 1}))
        desk.release(lease, requeue)
        assert desk.state.accounts.tokens == {"acme": 5}
    desk = Desk(Limits(chunk_rows=10))
    job = desk.queue(rows=[100])
    desk.lease(3)
    desk.cancel(job)
    desk.now += 60
    desk.settle()
    assert desk.state.accounts.tokens == {"acme": 0}


def test_urgent_work_is_charged_too():
    desk = Desk(Limits(chunk_rows=10))
    spec = builders.spec(deadline=1030)
    spec.service_class = job_pb2.SERVICE_CLASS_URGENT
    queue(desk, spec, 100)
    desk.now = 1029.0
    desk.lease()
    assert desk.state.accounts.tokens == {"acme": 10 * 5 // 4}


def test_the_class_of_the_moment_sets_the_price():
    desk = Desk(Limits(chunk_rows=10, flex_weight=0.5))
    spec = builders.spec()
    spec.service_class = job_pb2.SERVICE_CLASS_FLEX
    queue(desk, spec, 100)
    (lease,) = desk.lease()
    assert desk.state.leases[lease.fence].price == 2000
    answer(desk, lease)
    assert desk.state.accounts.tokens == {"acme": 100}


def test_who_comes_back_starts_level_with_the_least():
    accounts = Accounts()
    accounts.set_waiting("a", "m", True)
    accounts.charge("a", 100)
    accounts.set_waiting("b", "m", True)
    assert accounts.order("m") == [(100, "a"), (100, "b")]
    accounts.charge("b", 50)
    accounts.set_waiting("a", "m", False)
    accounts.set_waiting("b", "m", False)
    # Nobody waits: who comes next starts where the last one stopped, but nobody loses what it had.
    accounts.set_waiting("c", "m", True)
    accounts.charge("b", 30)
    accounts.set_waiting("b", "n", True)
    assert accounts.tokens == {"a": 100, "b": 180, "c": 150}
    assert (accounts.order("m"), accounts.order("n")) == ([(150, "c")], [(180, "b")])


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["m", "n"]),
        st.sampled_from(["wait", "leave", "charge"]),
        st.integers(-50, 200),
    ),
    max_size=60,
)


@given(STEPS)
def test_orders_hold_exactly_those_who_wait(steps: list[tuple[str, str, str, int]]):
    accounts, waiting = Accounts(), set[tuple[str, str]]()
    for tenant, model, step, tokens in steps:
        if step == "charge":
            accounts.charge(tenant, tokens)
            continue
        before = dict(accounts.tokens)
        least = min((before[other] for other, _ in waiting), default=accounts.floor)
        joins = step == "wait" and tenant not in {other for other, _ in waiting}
        accounts.set_waiting(tenant, model, step == "wait")
        (waiting.add if step == "wait" else waiting.discard)((tenant, model))
        if joins:
            assert accounts.tokens[tenant] == max(before.get(tenant, least), least)
        for name in ("m", "n"):
            held = sorted((accounts.tokens[other], other) for other, on in waiting if on == name)
            assert accounts.order(name) == held


@given(STEPS)
def test_a_snapshot_of_the_counters_restores_them(steps: list[tuple[str, str, str, int]]):
    accounts = Accounts()
    for tenant, model, step, tokens in steps:
        if step == "charge":
            accounts.charge(tenant, tokens)
        else:
            accounts.set_waiting(tenant, model, step == "wait")
    fresh = Accounts()
    for tenant, models in sorted(accounts.waiting().items()):
        for model in models:
            fresh.set_waiting(tenant, model, True)
    fresh.restore(dict(accounts.tokens), accounts.floor)
    assert vars(fresh) == vars(accounts)

"""`ExplainJob`: each cause is told by its own name, and goes away when its remedy is applied."""

import re
from collections.abc import Sequence

from services.scheduler.core.capacity import Capacity
from services.scheduler.core.explain import explain
from services.scheduler.core.leasing import Requeue
from services.scheduler.core.limits import Limits
from services.scheduler.core.prospects import Backlog
from tests.scheduler import builders
from tests.scheduler.desk import FAILED, Desk
from tests.scheduler.service_desk import CONTEXT, running
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_service_pb2

Cause = job_service_pb2.WaitCause
EVERYWHERE = {"tiny": 1}


def told(desk: Desk, number: int = 1, tenant: str = "acme", capacity: Capacity | None = None):
    seen = capacity or Capacity(1, EVERYWHERE, EVERYWHERE)
    answer = explain(Backlog(desk.state, seen, desk.limits, desk.now_ns), desk.job(number, tenant))
    return Cause.Name(answer.cause).removeprefix("WAIT_CAUSE_"), answer


def cause(desk: Desk, number: int = 1, tenant: str = "acme", capacity: Capacity | None = None) -> str:
    return told(desk, number, tenant, capacity)[0]


def queued(desk: Desk, numbers: Sequence[int], tenant: str = "acme") -> None:
    for number in numbers:
        desk.queue(builders.spec(number, tenant=tenant, deadline=1_000_000 + number), rows=(25,))


def test_before_and_after_the_queue() -> None:
    desk = Desk()
    desk.fill(builders.spec(), (5,))
    assert cause(desk) == "ROWS"
    desk.seal(builders.seal(desk.job().name, 5))
    assert cause(desk) == "FREE_SLOT"
    (lease,) = desk.lease()
    assert told(desk)[1].message == "it runs: 1 of its chunks are at workers"
    desk.answer(lease)
    assert cause(desk) == "CLOSING"
    (closing,) = desk.lease()
    desk.finish(closing)
    assert told(desk)[1].message == "the job has ended as SUCCEEDED"


def test_workers_and_models() -> None:
    desk = Desk()
    queued(desk, [1])
    assert cause(desk, capacity=Capacity()) == "NO_WORKER"
    assert cause(desk, capacity=Capacity(1, {}, {}, {"tiny": 1.0})) == "MODEL_LOAD"
    word, answer = told(desk, capacity=Capacity(1, EVERYWHERE, {}, {"tiny": 42.0}))
    assert (word, "42 s" in answer.message) == ("MODEL_TURN", True)


def test_caps_by_their_names() -> None:
    for limits, word in (
        (Limits(chunk_rows=10, max_leases=1), "GLOBAL_CAP"),
        (Limits(chunk_rows=10, max_leases_per_tenant=1), "TENANT_CAP"),
        (Limits(chunk_rows=10, max_leases_per_model=1), "MODEL_CAP"),
    ):
        desk = Desk(limits)
        queued(desk, [1, 2])
        desk.lease()
        assert cause(desk, 2) == word
    desk = Desk(Limits(chunk_rows=10, max_leases_per_job=1))
    queued(desk, [1])
    desk.lease()
    word, answer = told(desk)
    assert (word, answer.chunks_leased, answer.chunks_cap) == ("JOB_CAP", 1, 1)
    assert answer.remedies


def test_order_and_share() -> None:
    desk = Desk()
    queued(desk, [1, 2])
    word, answer = told(desk, 2)
    assert (word, answer.jobs_ahead, answer.rows_ahead) == ("TENANT_ORDER", 1, 25)
    queued(desk, [7], tenant="other")
    desk.lease()
    greedy = "acme" if desk.state.in_flight.by_tenant["acme"] else "other"
    number = 2 if greedy == "acme" else 7
    if greedy == "acme":
        desk.lease(2)
    assert cause(desk, number, greedy) in {"TENANT_SHARE", "TENANT_ORDER", "UNSPECIFIED"}


def test_backoff_names_the_seconds() -> None:
    desk = Desk()
    desk.queue(rows=(5,))
    (lease,) = desk.lease()
    desk.release(lease, Requeue(FAILED, "boom"))
    word, answer = told(desk)
    assert word == "BACKOFF"
    assert re.search(r"tried again in [1-9]\d* s$", answer.message)


async def test_the_call_gives_job_and_reason() -> None:
    async with running() as desk:
        name = await desk.queue()
        answer = await desk.rpc.ExplainJob(pb.ExplainJobRequest(job=name), CONTEXT)
        assert answer.job.spec.name == name
        assert answer.explanation.cause == Cause.WAIT_CAUSE_NO_WORKER

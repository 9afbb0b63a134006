"""One process among several, without the others: it leads, loses its term, answers nothing, and may come back."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.scheduler.app import Scheduler
from services.scheduler.core.limits import Limits
from services.scheduler.leadership import Leadership
from services.scheduler.ledger import RedisLedger
from services.scheduler.ledger.redis_address import parse
from tests.scheduler import builders
from tests.scheduler.redis_server import RedisServer
from tests.scheduler.service_desk import CONTEXT, until
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.serving import Served

TERM_SECONDS = 0.5
GET = pb.GetJobRequest(job=builders.job_name())


class FakeTrouble(RedisLedger):
    """A ledger whose renewals fail while `away` is set."""

    away = False

    def renew(self, epoch: int) -> None:
        if self.away:
            raise TidemillError(Reason.UNAVAILABLE, "Redis is away", retry_after=1.0)
        super().renew(epoch)


@dataclass
class Candidate:
    """A process, as far as it is about leading."""

    ledger: FakeTrouble
    serving: list[bool] = field(default_factory=list[bool])

    def __post_init__(self) -> None:
        def make(barred: Any) -> Scheduler:
            return Scheduler(self.ledger, Limits(), 15.0, barred=barred)

        self.leadership = Leadership(self.ledger, make, TERM_SECONDS)
        self.task = asyncio.create_task(self.leadership.run(Served("127.0.0.1:1", self.note)))

    async def note(self, serving: bool) -> None:
        self.serving.append(serving)

    async def leads(self) -> bool:
        return self.leadership.readiness().ready

    async def barred(self) -> bool:
        return not self.leadership.readiness().ready

    async def get(self) -> Any:
        return await self.leadership.leading().GetJob(GET, CONTEXT)

    async def create(self) -> Any:
        return await self.leadership.leading().CreateJob(pb.CreateJobRequest(spec=builders.spec()), CONTEXT)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@pytest.fixture
async def candidate(redis_server: RedisServer) -> AsyncIterator[Candidate]:
    candidate = Candidate(FakeTrouble(parse(redis_server.url(uuid.uuid4().hex))))
    await until(candidate.leads, 30)
    yield candidate
    await candidate.stop()


async def test_without_its_term_it_answers_nothing_and_with_it_again(candidate: Candidate):
    await candidate.create()
    candidate.ledger.away = True
    await until(candidate.barred, 30)
    with pytest.raises(TidemillError) as caught:
        await candidate.get()
    assert caught.value.reason is Reason.NOT_LEADER
    assert "could not renew its term" in caught.value.message
    assert candidate.leadership.readiness().details["reason"] == "NOT_LEADER"
    await until(lambda: serves(candidate, [False]), 30)
    candidate.ledger.away = False
    await until(candidate.leads, 30)
    assert (await candidate.get()).spec.name == GET.job
    await until(lambda: serves(candidate, [False, True]), 30)


async def serves(candidate: Candidate, latest: list[bool]) -> bool:
    return candidate.serving[-len(latest) :] == latest


async def test_a_term_that_was_taken_ends_its_lead_and_it_waits_its_turn(candidate: Candidate):
    await candidate.create()
    heir = RedisLedger(candidate.ledger.address)
    epoch = heir.open("heir").epoch
    await until(lambda: serves(candidate, [False]), 30)
    with pytest.raises(TidemillError) as caught:
        await candidate.create()
    assert caught.value.reason is Reason.NOT_LEADER
    heir.release(epoch)
    heir.close()
    await until(candidate.leads, 30)
    assert (await candidate.get()).spec.name == GET.job


async def test_a_process_that_is_told_to_stop_lets_go_of_its_term(candidate: Candidate):
    await candidate.stop()
    assert candidate.ledger.term().released
    assert candidate.serving[-1] is False

"""How long the scheduler's core takes to say what a worker does next, by the number of open jobs.

A decision is what one `LeaseChunks` call costs the core: choose the work, and fold the lease into the state. It is
timed on the code that the service runs, inside this process, without gRPC and without a ledger, in processor time of
its thread: other programs do not count, the garbage collector does.

The population is steady: 64 leases stay out, each step ends the oldest, and for each job that ends a fresh one is
sealed. Tenants follow Zipf's law; deadlines lie between ten minutes and a week ahead; workers have two of the eight
models loaded.
"""

import itertools
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import cycle_messages
from services.scheduler.core import endings, leasing, parts, views
from services.scheduler.core.limits import Limits
from services.scheduler.core.policy import Offer
from services.scheduler.core.records import Lease
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from services.scheduler.engine import Turn
from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2, model_service_pb2

TENANTS = 50
MODELS = 8
LOADED = 2
IN_FLIGHT = 64
SEED = 20_261_121

_LIMITS = Limits(chunk_rows=256, max_leases=1024, max_leases_per_tenant=256, max_leases_per_model=256)
_CLASSES = (job_pb2.SERVICE_CLASS_URGENT, job_pb2.SERVICE_CLASS_STANDARD, job_pb2.SERVICE_CLASS_FLEX)
_LOADED = model_service_pb2.MODEL_STATE_LOADED
_COLD = model_service_pb2.MODEL_STATE_COLD


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def decision_ms(open_jobs: int, decisions: int) -> list[float]:
    """Milliseconds of each of so many decisions, with `open_jobs` jobs sealed and unfinished all the time."""
    population = Population()
    for _ in range(open_jobs):
        population.arrive()
    for _ in range(IN_FLIGHT):
        population.decide()
    return [population.step() for _ in range(decisions)]


@dataclass
class Population:
    """A state, and the tenants and workers around it."""

    state: State = field(default_factory=State)
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))  # noqa: S311 - a fixed population
    out: deque[Lease] = field(default_factory=deque[Lease])
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    now_ns: int = field(default_factory=time.time_ns)

    def step(self) -> float:
        """Milliseconds of one decision that leases something, and what keeps the population steady."""
        while True:
            self.now_ns += SECOND
            before = len(self.out)
            elapsed = self.decide()
            leased = len(self.out) > before
            if self.out and (len(self.out) > IN_FLIGHT or not leased):
                self._answer(self.out.popleft())
            if leased:
                return elapsed

    def decide(self) -> float:
        """Lease the next piece of work to some worker, if there is any; returns milliseconds."""
        loaded = self.chance.sample(range(MODELS), LOADED)
        models = {f"model-{number}": _LOADED if number in loaded else _COLD for number in range(MODELS)}
        offer = Offer(f"worker-{loaded[0]}-{loaded[1]}", models)
        turn = Turn(self.state, 1, self.now_ns)
        started = time.thread_time()
        events = turn.record(leasing.lease_next(self.state, offer, _LIMITS, self.now_ns))
        elapsed = (time.thread_time() - started) * 1000
        self.out.extend(self.state.leases[event.sequence] for event in events)
        return elapsed

    def _answer(self, lease: Lease) -> None:
        """Commit every row of the lease's chunk, or close its job and let another arrive."""
        message = views.lease_message(self.state, lease, 15.0)
        if message.kind == pb.LEASE_KIND_CHUNK:
            self._record(parts.commit_part(self.state, cycle_messages.part(message)))
        elif message.kind == pb.LEASE_KIND_FINALISE:
            self._record(endings.finish_job(self.state, cycle_messages.finish(message)))
            self.arrive()

    def arrive(self) -> None:
        """A sealed job of some tenant: a few chunks for most, hundreds for some."""
        number = next(self.numbers)
        tenant = f"tenant-{min(TENANTS, int(self.chance.paretovariate(1.0)))}"
        spec = self._spec(tenant, number)
        rows = 1 << self.chance.choice((5, 7, 9, 9, 11, 16))
        segment = cycle_messages.segment(spec.name, 1, rows)
        seal = cycle_messages.seal(spec.name, rows)
        sealed = ledger_pb2.JobSealed(
            job=spec.name,
            row_count=rows,
            input_data_version=seal.input_data_version,
            input_manifest_key=seal.input_manifest_key,
            dataset=seal.dataset,
            admitted_at_risk=True,
        )
        committed = ledger_pb2.SegmentCommitted(
            job=spec.name, writer_epoch=1, segment=segment.segment, merkle_frontier=segment.merkle_frontier
        )
        self._record(
            [
                ledger_pb2.LedgerEvent(job_created=ledger_pb2.JobCreated(spec=spec)),
                ledger_pb2.LedgerEvent(writer_opened=ledger_pb2.WriterOpened(job=spec.name, writer_epoch=1)),
                ledger_pb2.LedgerEvent(segment_committed=committed),
                ledger_pb2.LedgerEvent(job_sealed=sealed),
            ]
        )

    def _spec(self, tenant: str, number: int) -> records_pb2.JobSpec:
        spec = cycle_messages.spec(tenant, number, f"model-{self.chance.randrange(MODELS)}")
        spec.complete_by_time.seconds = self.now_ns // SECOND + self.chance.randrange(600, 7 * 24 * 3600)
        spec.service_class = self.chance.choice(_CLASSES)
        return spec

    def _record(self, events: list[ledger_pb2.LedgerEvent]) -> None:
        Turn(self.state, 1, self.now_ns).record(events)

"""One workload under one policy: slots ask, take, load, run and commit on a virtual clock."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from statistics import median

from benchmarks.simulate.desk import Desk
from benchmarks.simulate.workload import Model, SimJob, Workload, alone_seconds, calibration_job
from services.scheduler.core.capacity import Capacity
from services.scheduler.core.limits import Limits
from services.scheduler.core.offers import Offer, Policy, Tightness
from services.scheduler.core.records import Lease
from tidemill.v1 import model_service_pb2

LOAD_SECONDS = 60.0
SLOTS = 8

_LOADED = model_service_pb2.MODEL_STATE_LOADED
_COLD = model_service_pb2.MODEL_STATE_COLD


@dataclass(frozen=True, slots=True)
class Options:
    """What is common to the runs that are compared.

    Attributes:
        slots: workers; each has one engine with one model in it and runs a chunk at a time.
        load_seconds: time to put another model into an engine.
        oracle: the scheduler knows the true lengths of rows.
        admission: jobs whose deadlines cannot be promised are refused.
    """

    slots: int = SLOTS
    load_seconds: float = LOAD_SECONDS
    oracle: bool = False
    admission: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True)
class Outcome:
    """What became of one run.

    Attributes:
        late, jobs: of those admitted.
        refused: jobs that admission refused.
        swaps: loads of a model into an engine that had another.
        slowdowns: of the small tenants' jobs: time from arrival to end over the time that the job takes alone.
        by_tenant: the same for every tenant.
        busy: share of the slots' time in which rows ran.
    """

    jobs: int = 0
    late: int = 0
    refused: int = 0
    swaps: int = 0
    slowdowns: list[float] = field(default_factory=list[float])
    by_tenant: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    busy: float = 0.0

    @property
    def late_ratio(self) -> float:
        """Share of the admitted jobs that ended behind their deadline."""
        return self.late / self.jobs if self.jobs else 0.0

    @property
    def slowdown(self) -> float:
        """Median over the small tenants' jobs."""
        return median(self.slowdowns) if self.slowdowns else 0.0


@dataclass(slots=True)
class Slot:
    """A worker."""

    name: str
    model: str = ""

    def offer(self, models: list[str], options: Options, tightness: Tightness) -> Offer:
        """All models, this slot's loaded."""
        states = {model: _LOADED if model == self.model else _COLD for model in models}
        loads = dict.fromkeys(models, options.load_seconds)
        return Offer(self.name, states, loads, dict.fromkeys(models, options.slots), tightness)


class Run:
    """The event loop."""

    def __init__(self, workload: Workload, policy: Policy, options: Options) -> None:
        self._workload = workload
        self._options = options
        self._desk = Desk(policy, options.limits, options.oracle)
        self._models = [model.name for model in workload.models]
        self._idle = deque(Slot(f"w{number}") for number in range(options.slots))
        self._running: list[tuple[float, int, Slot, Lease, float]] = []
        self._busy_seconds = 0.0
        self._tight = (0.0, Tightness())
        self.outcome = Outcome()

    def execute(self) -> Outcome:
        """Run until the last job has ended."""
        self._calibrate(self._workload.models)
        arrivals = deque(self._workload.jobs)
        while arrivals or self._running:
            if self._running and (not arrivals or self._running[0][0] <= arrivals[0].arrival):
                self._end_chunk()
            else:
                self._arrive(arrivals.popleft())
            self._hand_out()
        span = self._desk.now * self._options.slots
        self.outcome.busy = self._busy_seconds / span if span else 0.0
        return self.outcome

    def _calibrate(self, models: Sequence[Model]) -> None:
        """Every model's rate is known before the first job comes, as it is in a service that has run for a while."""
        for number, model in enumerate(models):
            for part in range(3):
                self._teach(model, 10_000_000 + 10 * number + part)
        self._desk.now += 1.0

    def _teach(self, model: Model, number: int) -> None:
        job = calibration_job(model, number)
        self._desk.submit(job)
        offer = Offer("calibration", {model.name: _LOADED})
        while (lease := self._desk.lease(offer)) is not None:
            self._desk.commit(lease, self._desk.tokens(lease) / model.rate)

    def _arrive(self, job: SimJob) -> None:
        self._desk.now = max(self._desk.now, job.arrival)
        capacity = self._capacity() if self._options.admission else None
        if self._desk.submit(job, capacity):
            self.outcome.jobs += 1
        else:
            self.outcome.refused += 1

    def _capacity(self) -> Capacity:
        slots = [*self._idle, *(entry[2] for entry in self._running)]
        return Capacity(
            engines=len(slots),
            by_model=dict.fromkeys(self._models, len(slots)),
            loaded={model: sum(slot.model == model for slot in slots) for model in self._models},
            load_seconds=dict.fromkeys(self._models, self._options.load_seconds),
        )

    def _end_chunk(self) -> None:
        self._desk.now, _, slot, lease, seconds = heappop(self._running)
        self._busy_seconds += seconds
        if self._desk.commit(lease, seconds):
            self._count(self._desk.sim_job(lease.job))
        self._idle.append(slot)

    def _count(self, job: SimJob) -> None:
        self.outcome.late += self._desk.now > job.deadline
        slowdown = (self._desk.now - job.arrival) / alone_seconds(job.seconds, self._options.slots)
        self.outcome.by_tenant.setdefault(job.tenant.name, []).append(slowdown)
        if job.tenant.small:
            self.outcome.slowdowns.append(slowdown)

    def _hand_out(self) -> None:
        for _ in range(len(self._idle)):
            slot = self._idle.popleft()
            lease = self._desk.lease(slot.offer(self._models, self._options, self._tightness()))
            if lease is None:
                self._idle.append(slot)
            else:
                self._start(slot, lease)

    def _tightness(self) -> Tightness:
        """As the service computes it, at most once a second."""
        if self._desk.now - self._tight[0] >= 1.0:
            self._tight = (self._desk.now, self._desk.tightness(self._capacity()))
        return self._tight[1]

    def _start(self, slot: Slot, lease: Lease) -> None:
        job = self._desk.sim_job(lease.job)
        load = 0.0
        if slot.model != job.model.name:
            load = self._options.load_seconds
            self.outcome.swaps += bool(slot.model)
            slot.model = job.model.name
        seconds = self._desk.tokens(lease) / job.model.rate
        heappush(self._running, (self._desk.now + load + seconds, lease.fence, slot, lease, seconds))

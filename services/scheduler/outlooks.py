"""What the shell gives the core to look ahead with, and the watch that keeps every job's outlook current.

Outlooks are reviewed by a heap of next times, a bounded number a tick, and soon after a job's own commits; nothing
scans the jobs. The heap is made anew when the state is, from the index of open jobs.
"""

import heapq
from collections.abc import Sequence

from services.scheduler.clock import Clock
from services.scheduler.core.capacity import Capacity
from services.scheduler.core.limits import Limits
from services.scheduler.core.offers import Tightness
from services.scheduler.core.prospects import Backlog
from services.scheduler.core.sla import SOONEST_NS, next_review_ns, review
from services.scheduler.core.state import State
from services.scheduler.core.tightness import tightness
from services.scheduler.core.times import SECOND
from services.scheduler.engine import Turn
from services.scheduler.workers import Worker, Workers
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import model_service_pb2

MAX_REVIEWS = 100
"""Most jobs reviewed in one turn: the others follow in the next, so that no caller waits behind all of them."""

TIGHT_NS = SECOND
"""How old the answer to where promised work is tight may be: it takes a pass over the minutes with deadlines."""

_AT_ONCE = frozenset({"job_sealed", "job_updated", "job_resumed", "job_paused", "job_escalated"})


def capacity_of(workers: Workers, now: float, default_load_seconds: float) -> Capacity:
    """What the live workers report, summed up."""
    live = workers.live(now)
    by_model: dict[str, int] = {}
    loaded: dict[str, int] = {}
    loads: dict[str, float] = {}
    spare: dict[str, int] = {}
    digests: dict[str, set[str]] = {}
    for worker in live:
        _count(worker, by_model, loaded)
        for name, report in worker.models.items():
            loads[name] = max(loads.get(name, 0.0), report.load_seconds)
            spare[name] = spare.get(name, 0) + report.spare_engines
            digests.setdefault(name, set()).add(report.digest)
    agreed = {name: next(iter(found)) for name, found in digests.items() if len(found) == 1}
    return Capacity(len(live), by_model, loaded, loads, agreed, default_load_seconds, spare)


def _count(worker: Worker, by_model: dict[str, int], loaded: dict[str, int]) -> None:
    for name, report in worker.models.items():
        if report.state != model_service_pb2.MODEL_STATE_FAILED:
            by_model[name] = by_model.get(name, 0) + 1
        if report.state == model_service_pb2.MODEL_STATE_LOADED:
            loaded[name] = loaded.get(name, 0) + 1


class Outlooks:
    """Backlogs on demand, and the reviews that are due."""

    def __init__(self, workers: Workers, clock: Clock, limits: Limits) -> None:
        self._workers = workers
        self._clock = clock
        self._limits = limits
        self._tight = (Tightness(), -TIGHT_NS)
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def backlog(self, state: State, now_ns: int) -> Backlog:
        """The demand and the capacity now."""
        capacity = capacity_of(self._workers, self._clock.monotonic(), self._limits.load_seconds)
        return Backlog(state, capacity, self._limits, now_ns)

    def tightness(self, state: State, now_ns: int) -> Tightness:
        """Until when promised work fills the time, as it was at most a second ago."""
        tight, seen_ns = self._tight
        if not 0 <= now_ns - seen_ns < TIGHT_NS:
            tight = tightness(self.backlog(state, now_ns))
            self._tight = (tight, now_ns)
        return tight

    def restart(self, state: State) -> None:
        """Know exactly the open jobs of a state that was rebuilt."""
        self._due, self._heap = {}, []
        now_ns = self._clock.wall_ns()
        for name in state.demand.claims:
            self._plan(name, now_ns)

    def note(self, events: Sequence[ledger_pb2.LedgerEvent]) -> None:
        """Plan reviews after what happened to jobs."""
        now_ns = self._clock.wall_ns()
        for event in events:
            payload = event.WhichOneof("payload")
            if payload in _AT_ONCE:
                self._plan(getattr(event, payload).job, now_ns)
            elif payload == "part_committed":
                self._hasten(event.part_committed.job, now_ns + SOONEST_NS)

    def _hasten(self, job: str, due_ns: int) -> None:
        if job in self._due and self._due[job] > due_ns:
            self._plan(job, due_ns)

    def _plan(self, job: str, due_ns: int) -> None:
        self._due[job] = due_ns
        heapq.heappush(self._heap, (due_ns, job))

    def next_ns(self) -> int | None:
        """Wall time of the next review; None without one."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def step(self, turn: Turn) -> None:
        """Record what the due reviews found."""
        backlog: Backlog | None = None
        for _ in range(MAX_REVIEWS):
            due_ns = self.next_ns()
            if due_ns is None or due_ns > turn.now_ns:
                return
            _, name = heapq.heappop(self._heap)
            del self._due[name]
            backlog = backlog or self.backlog(turn.state, turn.now_ns)
            self._review(turn, backlog, name)

    def _review(self, turn: Turn, backlog: Backlog, name: str) -> None:
        job = turn.state.jobs.get(name)
        if job is None or job.seal is None or job.ending is not None:
            return
        turn.record(review(backlog, job))
        self._plan(name, next_review_ns(turn.state.jobs[name], turn.now_ns))

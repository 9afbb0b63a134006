"""What operators see of the scheduler at `/metrics`. Labels are bounded: from the 101st tenant on it is `other`."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import prometheus_client
from prometheus_client import Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from services.scheduler.core.records import LeaseKind
from services.scheduler.core.state import JobsKey, State
from services.scheduler.core.times import SECOND
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2

MAX_TENANT_LABELS = 100
MAX_MODEL_LABELS = 100

ROWS = prometheus_client.Counter("tidemill_scheduler_rows", "Rows that got a result.", ["tenant", "model", "outcome"])
TOKENS = prometheus_client.Counter(
    "tidemill_scheduler_tokens", "Tokens of rows that got a result.", ["tenant", "model", "kind"]
)
REQUEUES = prometheus_client.Counter("tidemill_scheduler_requeues", "Leases that ended undone.", ["reason"])
APPEND_SECONDS = Histogram("tidemill_scheduler_ledger_append_seconds", "Duration of one durable append in seconds.")
GROUP_EVENTS = Histogram(
    "tidemill_scheduler_group_events", "Events that shared one append.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 512)
)
LEADER = prometheus_client.Gauge("tidemill_scheduler_leader", "1 while this scheduler leads, among several.")
SNAPSHOT_PAUSE_SECONDS = Histogram(
    "tidemill_scheduler_snapshot_pause_seconds",
    "How long decisions stood still for a snapshot, in seconds.",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1),
)
LEASE_WAIT_SECONDS = Histogram(
    "tidemill_scheduler_lease_wait_seconds",
    "From a job's seal to its first lease, in seconds.",
    ["model"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600, 3600, 21600),
)

ETA_RATIO = Histogram(
    "tidemill_scheduler_eta_ratio",
    "Time that a succeeded job took since its first ETA, over the time foretold at the 50th percentile.",
    ["model"],
    buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2, 4, 10),
)
ETA_JOBS = prometheus_client.Counter(
    "tidemill_scheduler_eta_jobs",
    "Succeeded jobs that had an ETA, by whether they ended by its 90th percentile.",
    ["model", "within_p90"],
)
DEADLINES = prometheus_client.Counter(
    "tidemill_scheduler_deadlines", "Succeeded jobs by whether they ended by their deadline.", ["model", "met"]
)


class _Labels:
    """Passes the first values through and calls the rest `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= self._limit:
                return "other"
            self._known.add(value)
        return value


_tenant = _Labels(MAX_TENANT_LABELS)
_model = _Labels(MAX_MODEL_LABELS)


def observe(state: State, events: Iterable[ledger_pb2.LedgerEvent]) -> None:
    """Count what became durable."""
    for event in events:
        match event.WhichOneof("payload"):
            case "part_committed":
                _count_part(state, event.part_committed)
            case "chunk_leased":
                _time_first_lease(state, event)
            case "chunk_requeued":
                _count_requeue(event.chunk_requeued.reason)
            case "finalise_requeued":
                _count_requeue(event.finalise_requeued.reason)
            case "cleanup_requeued":
                _count_requeue(event.cleanup_requeued.reason)
            case "job_finished":
                _judge_foresight(state, event.job_finished.job)
            case _:
                pass


def _judge_foresight(state: State, name: str) -> None:
    """Compare what was foretold with what came; a job that is gone by now, or did not succeed, tells nothing."""
    job = state.jobs.get(name)
    if job is None or job.state != job_pb2.JOB_STATE_SUCCEEDED:
        return
    model = _model(job.model)
    DEADLINES.labels(model, _yes(job.end_ns <= job.deadline_ns)).inc()
    if job.promised_ns:
        foretold = max(job.promised_p50_ns - job.promised_ns, SECOND)
        ETA_RATIO.labels(model).observe((job.end_ns - job.promised_ns) / foretold)
        ETA_JOBS.labels(model, _yes(job.end_ns <= job.promised_p90_ns)).inc()


def _yes(holds: bool) -> str:
    return "true" if holds else "false"


def _count_part(state: State, committed: ledger_pb2.PartCommitted) -> None:
    job = state.jobs[committed.job]
    labels = (_tenant(job.tenant), _model(job.model))
    tally = committed.part.tally
    for outcome in ("succeeded", "failed", "cancelled", "expired"):
        if number := getattr(tally, outcome):
            ROWS.labels(*labels, outcome).inc(number)
    for kind in ("prompt", "output", "cached"):
        if number := getattr(tally, f"{kind}_tokens"):
            TOKENS.labels(*labels, kind).inc(number)


def _time_first_lease(state: State, event: ledger_pb2.LedgerEvent) -> None:
    job = state.jobs[event.chunk_leased.job]
    if job.seal is not None and job.first_fence == state.fence_of(event):
        LEASE_WAIT_SECONDS.labels(_model(job.model)).observe((job.start_ns - job.seal.time_ns) / SECOND)


def _count_requeue(reason: "ledger_pb2.RequeueReason.ValueType") -> None:
    REQUEUES.labels(ledger_pb2.RequeueReason.Name(reason).removeprefix("REQUEUE_REASON_").lower()).inc()


class StateCollector:
    """Jobs by state and open leases, read off the state at each scrape, so that they cannot drift from it.

    Scrapes come from another thread; copying a dict's items is one step for the interpreter.
    """

    def __init__(self, state: Callable[[], State | None]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """The gauges now; none while the state is being rebuilt."""
        state = self._state()
        if state is None:
            return
        yield _jobs(list(state.counts.items()))
        leases = GaugeMetricFamily("tidemill_scheduler_open_leases", "Leases at workers now.", labels=["kind"])
        chunks = state.in_flight.total
        leases.add_metric([LeaseKind.CHUNK.value], chunks)
        cleanups = state.cleanups_leased
        leases.add_metric([LeaseKind.CLEANUP.value], cleanups)
        leases.add_metric([LeaseKind.FINALISE.value], max(0, len(state.leases) - chunks - cleanups))
        yield leases


def _jobs(counts: list[tuple[JobsKey, int]]) -> Metric:
    sums: Counter[tuple[str, str, str]] = Counter()
    for (tenant, model, job_state), number in counts:
        state_label = job_pb2.JobState.Name(job_state).removeprefix("JOB_STATE_").lower()
        sums[_tenant(tenant), _model(model), state_label] += number
    family = GaugeMetricFamily("tidemill_scheduler_jobs", "Jobs by state.", labels=["tenant", "model", "state"])
    for labels, number in sums.items():
        family.add_metric(labels, number)
    return family

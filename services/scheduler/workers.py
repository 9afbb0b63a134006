"""Which workers live and what they can serve. Kept in memory: a restart learns it anew within a second."""

from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field

from services.scheduler.core.checks import require
from services.scheduler.core.policy import Offer
from tidemill.internal.v1 import records_pb2
from tidemill.v1 import model_service_pb2

MAX_MODELS = 1000
MAX_ID_BYTES = 256
SWEEP_SECONDS = 1.0
MAX_LOAD_SECONDS = 86_400.0

# The best state first: what a client sees of a model that several workers offer.
_RANK = {
    model_service_pb2.MODEL_STATE_LOADED: 0,
    model_service_pb2.MODEL_STATE_LOADING: 1,
    model_service_pb2.MODEL_STATE_COLD: 2,
    model_service_pb2.MODEL_STATE_FAILED: 3,
}


@dataclass(slots=True)
class Worker:
    """A worker process: its last reports, and how many long polls it has open."""

    worker_id: str
    models: dict[str, records_pb2.ModelReport] = field(default_factory=dict[str, records_pb2.ModelReport])
    last_seen: float = 0.0
    polls: int = 0


class Workers:
    """The workers heard of within `liveness_seconds`, or waiting in a long poll now."""

    def __init__(self, liveness_seconds: float) -> None:
        self._liveness_seconds = liveness_seconds
        self._workers: dict[str, Worker] = {}
        self._offering: Counter[str] = Counter()
        self._swept = 0.0

    def report(self, worker_id: str, models: Iterable[records_pb2.ModelReport], now: float) -> tuple[Worker, set[str]]:
        """Note that the worker lives and what it offers, in full; returns it with the models whose report changed.

        Raises:
            TidemillError: INVALID_ARGUMENT.
        """
        require(0 < len(worker_id.encode()) <= MAX_ID_BYTES, "worker_id", f"must have 1 to {MAX_ID_BYTES} bytes")
        reports = {report.model: report for report in models}
        require(len(reports) <= MAX_MODELS, "models", f"must be at most {MAX_MODELS}")
        for report in reports.values():
            require(bool(report.model), "models.model", "must be set")
            require(report.state in _RANK, "models.state", "must be COLD, LOADING, LOADED or FAILED")
            require(
                0 <= report.load_seconds <= MAX_LOAD_SECONDS,
                "models.load_seconds",
                f"must be 0 to {MAX_LOAD_SECONDS:.0f}",
            )
            require(0 <= report.spare_engines <= MAX_MODELS, "models.spare_engines", f"must be 0 to {MAX_MODELS}")
        worker = self._workers.setdefault(worker_id, Worker(worker_id))
        changed = {
            name for name in reports.keys() | worker.models.keys() if reports.get(name) != worker.models.get(name)
        }
        if changed:
            self._offering.subtract(worker.models.keys())
            self._offering.update(reports.keys())
        worker.models = reports
        worker.last_seen = now
        return worker, changed

    @contextmanager
    def polling(self, worker: Worker) -> Generator[None]:
        """A worker that waits in a long poll is alive for as long as the call is."""
        worker.polls += 1
        try:
            yield
        finally:
            worker.polls -= 1

    def live(self, now: float) -> list[Worker]:
        """The workers that live; the others are forgotten."""
        dead = [
            worker_id
            for worker_id, worker in self._workers.items()
            if not worker.polls and now - worker.last_seen > self._liveness_seconds
        ]
        for worker_id in dead:
            self._offering.subtract(self._workers.pop(worker_id).models.keys())
        self._swept = now
        return list(self._workers.values())

    def offer(self, worker: Worker, now: float) -> Offer:
        """What the worker can be given, what loading took it, and how many workers can share each model's work."""
        # This runs for each lease, so it neither looks at every worker nor counts them.
        if now > self._swept + SWEEP_SECONDS:
            self.live(now)
        return Offer(
            worker.worker_id,
            models={name: report.state for name, report in worker.models.items()},
            load_seconds={
                name: report.load_seconds for name, report in worker.models.items() if report.load_seconds > 0
            },
            engines={name: self._offering[name] for name in worker.models},
        )

    def offers(self, model: str, now: float) -> bool:
        """Whether a live worker offers the model."""
        return any(model in worker.models for worker in self.live(now))

    def models(self, now: float) -> list[tuple[records_pb2.ModelReport, int]]:
        """Each model on offer by name: the report of the worker in the best state, with the replicas and engine deaths
        of all workers, and how many workers offer it."""
        found: dict[str, list[records_pb2.ModelReport]] = {}
        for worker in self.live(now):
            for name, report in worker.models.items():
                found.setdefault(name, []).append(report)
        return [(_over_workers(found[name]), len(found[name])) for name in sorted(found)]

    def is_loading(self, model: str, now: float) -> bool:
        """Whether some worker is loading `model` and none has it loaded."""
        states = {worker.models[model].state for worker in self.live(now) if model in worker.models}
        return model_service_pb2.MODEL_STATE_LOADING in states and model_service_pb2.MODEL_STATE_LOADED not in states


def _over_workers(reports: list[records_pb2.ModelReport]) -> records_pb2.ModelReport:
    total = records_pb2.ModelReport()
    total.CopyFrom(min(reports, key=lambda each: _RANK[each.state]))
    total.replicas = sum(report.replicas for report in reports)
    total.engine_deaths = sum(report.engine_deaths for report in reports)
    return total

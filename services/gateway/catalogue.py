"""The models that can be asked for, as the scheduler knows them, with a short memory."""

import asyncio
import time

from services.gateway.scheduler import Scheduler
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.internal.v1 import records_pb2

_FRESH_SECONDS = 1.0
# A worker that restarts, or a scheduler that has not heard of its workers yet, does not make a model unknown.
_REMEMBERED_SECONDS = 60.0
_NAMED_MODELS = 20


class ModelCatalogue:
    """Looks models up; the scheduler is asked at most once a second, and for models that are not known."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._live: list[str] = []
        self._reports: dict[str, records_pb2.ModelReport] = {}
        self._seen_at: dict[str, float] = {}

    async def require(self, model: str) -> records_pb2.ModelReport:
        """The report about a model; MODEL_NOT_FOUND, naming the available ones, when no worker offers it."""
        now = await self._refresh()
        if not self._offered(model, now):
            now = await self._refresh(stale_after=0)
        if self._offered(model, now):
            return self._reports[model]
        shown = ", ".join(self._live[:_NAMED_MODELS]) or "none, since no worker is connected"
        raise TidemillError(
            Reason.MODEL_NOT_FOUND,
            f"no worker offers model {model[:256]!r}; available: {shown}",
            metadata={"model": model[:256], "available": shown},
            violations=[FieldViolation("job.model", "no worker offers it")],
        )

    async def latest(self, model: str) -> records_pb2.ModelReport:
        """The last report ever heard about a model; one without bounds when there was none."""
        await self._refresh()
        return self._reports.get(model) or records_pb2.ModelReport(model=model, has_chat_template=True)

    def _offered(self, model: str, now: float) -> bool:
        return now - self._seen_at.get(model, float("-inf")) <= _REMEMBERED_SECONDS

    async def _refresh(self, stale_after: float = _FRESH_SECONDS) -> float:
        async with self._lock:
            now = time.monotonic()
            if now - self._read_at > stale_after:
                response = await self._scheduler.list_models()
                now = self._read_at = time.monotonic()
                self._live = sorted(report.model for report in response.models)
                for report in response.models:
                    self._reports[report.model] = report
                    self._seen_at[report.model] = now
            return now

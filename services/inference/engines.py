"""Keeps engines warm: one named Ray actor a model, loaded on demand, unloaded when idle, replaced when dead."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.inference import metrics, orphans, reports
from services.inference.actor import EngineActor
from services.inference.engine_config import EngineConfig
from services.inference.gate import Gate
from services.inference.launch import config_for, end_engine, start_engine
from services.inference.memory import room_for
from services.inference.models import Catalog, ModelFiles, ModelUnusableError, engine_build
from services.inference.residency import Wishes, to_evict
from services.inference.resident import Engine, EngineUnavailableError, ModelSlot, WeightsChangedError
from services.inference.settings import InferenceSettings
from services.inference.weights import fingerprint
from tidemill import telemetry
from tidemill.internal.v1 import records_pb2
from tidemill.v1 import model_service_pb2

__all__ = ["Engines"]

log = telemetry.logger(__name__)

State = model_service_pb2.ModelState
_MAX_PAUSE_SECONDS = 1200.0
_DEATHS_IN_A_ROW = 3
# A suspect is expected to kill its engine, again and again while it is halved: that is not yet the model's fault.
_DEATHS_ALONE_IN_A_ROW = 20


class Engines:
    """The engines of this worker. All methods belong to one event loop; `actor_class` has `EngineActor`'s methods."""

    def __init__(
        self, settings: InferenceSettings, catalog: Catalog, home: Path, actor_class: type = EngineActor
    ) -> None:
        self._actor_class = actor_class
        self._settings = settings
        self._catalog = catalog
        self._home = home
        self._slots = {model: ModelSlot() for model in catalog.models}
        self._generation = 0
        self._wishes = Wishes()
        self._changed = asyncio.Event()
        self._background: set[asyncio.Task[Any]] = set()
        self._loading = asyncio.Lock()
        self.build = engine_build(settings.engine)

    async def describe(self) -> None:
        """Read what is known of each model; an unusable one is FAILED from the start."""
        for model, slot in self._slots.items():
            try:
                slot.files = await asyncio.to_thread(self._catalog.describe, model)
            except ModelUnusableError as exc:
                self._fail(model, str(exc))

    def reports(self) -> list[records_pb2.ModelReport]:
        """What the scheduler is told of each model."""
        self._end_pauses()
        return [reports.model_report(model, slot, self.build) for model, slot in self._slots.items()]

    def files(self, model: str) -> ModelFiles | None:
        """What is known of a model."""
        slot = self._slots.get(model)
        return slot.files if slot else None

    def gate(self, model: str) -> Gate:
        """What a chunk passes before it goes to the model's engine; EngineUnavailableError for a model not offered."""
        return self._slot(model).gate

    async def ready_files(self, model: str) -> ModelFiles:
        """The model's files, downloaded when missing; for engines that others start."""
        return await asyncio.to_thread(self._catalog.fetch, model)

    def config(self, files: ModelFiles) -> EngineConfig:
        """How an engine for these files is started."""
        return config_for(self._settings, files)

    @asynccontextmanager
    async def hold(self, model: str) -> AsyncGenerator[Engine]:
        """An engine for the model, loaded if need be, and not unloaded while held.

        Raises:
            EngineUnavailableError: it cannot be loaded.
            WeightsChangedError: its weight files changed since it was loaded.
        """
        slot = self._slot(model)
        slot.waiting += 1
        try:
            # Whoever waits may give up; the load goes on, for the next.
            engine = await asyncio.shield(self._start(self._loaded(model, slot)))
            engine.users += 1
        finally:
            slot.waiting -= 1
        try:
            self._check_weights(model, engine)
            yield engine
        finally:
            engine.users -= 1
            engine.last_used = time.monotonic()
            self._changed.set()

    def proved(self, model: str) -> None:
        """The engine answered rows: its deaths no longer count in a row."""
        self._slots[model].deaths.clear()

    async def lost(self, model: str, engine: Engine, message: str) -> None:
        """The engine died: end what is left of it. After three deaths without an answer the model is FAILED."""
        if engine.dead:
            return
        engine.dead, slot = True, self._slots[model]
        alone = slot.gate.alone
        async with slot.lock:
            if slot.engine is not engine:
                return
            metrics.ENGINE_DEATHS.labels(model).inc()
            log.error("engine died", model=model, actor=engine.actor_name, error=message)
            await self._end(slot, orderly=False)
            slot.deaths[alone] += 1
            slot.state = State.MODEL_STATE_COLD
            if slot.deaths[alone] >= (_DEATHS_ALONE_IN_A_ROW if alone else _DEATHS_IN_A_ROW):
                self._fail(model, f"the engine died {slot.deaths.total()} times in a row, last: {message}")

    def wish(self, wishes: Wishes) -> None:
        """Load what is pinned and unload what is drained, behind the caller's back; repeated about every second."""
        if wishes != self._wishes:
            log.info("models wished", pinned=sorted(wishes.pinned), drained=sorted(wishes.drained))
            self._wishes = wishes
            self._changed.set()
        for model in wishes.to_load(self._slots):
            # Told apart from COLD at once, so that the next wish does not start a second load.
            self._slots[model].state = State.MODEL_STATE_LOADING
            self._start(self._loaded(model, self._slots[model]))
        for model in wishes.to_unload(self._slots):
            self._start(self._unload(model))

    async def reap(self) -> None:
        """End what engines that Ray Data started left behind."""
        await asyncio.to_thread(orphans.reap, self._home)

    async def watch(self) -> None:
        """Probe engines and unload idle ones, for ever."""
        while True:
            await asyncio.sleep(self._settings.probe_seconds)
            await asyncio.gather(*(self._check(model) for model in self._slots))

    async def close(self) -> None:
        """Unload all engines."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for slot in self._slots.values():
            async with slot.lock:
                await self._end(slot, orderly=True)

    async def _loaded(self, model: str, slot: ModelSlot) -> Engine:
        async with slot.lock:
            self._end_pauses()
            if slot.state == State.MODEL_STATE_FAILED:
                raise EngineUnavailableError(slot.message)
            if slot.engine is None:
                await self._load(model, slot)
            if slot.engine is None:
                raise EngineUnavailableError(slot.message)
            return slot.engine

    def _slot(self, model: str) -> ModelSlot:
        slot = self._slots.get(model)
        if slot is None:
            raise EngineUnavailableError(f"this worker does not offer model {model!r}")
        return slot

    async def _load(self, model: str, slot: ModelSlot) -> None:
        slot.state, start = State.MODEL_STATE_LOADING, time.monotonic()
        log.info("engine load", model=model)
        try:
            slot.files = await self.ready_files(model)
            async with self._loading:
                await self._make_room(slot.files)
                self._generation += 1
                slot.engine = start_engine(self._actor_class, self._settings, slot.files, self._generation, self.build)
                await asyncio.wait_for(slot.engine.actor.load.remote(), self._settings.load_seconds)
        except Exception as exc:  # noqa: BLE001 - vLLM raises anything; its words are the model's state
            await self._end(slot, orderly=False)
            self._fail(model, _own_words(exc))
            return
        slot.state, slot.message, slot.pause_seconds = State.MODEL_STATE_LOADED, "", 0.0
        slot.load_seconds = time.monotonic() - start
        metrics.LOAD_SECONDS.labels(model).observe(slot.load_seconds)
        metrics.ENGINES.set(self._resident)
        log.info("engine loaded", model=model, seconds=round(slot.load_seconds, 3), digest=slot.files.digest)

    async def _make_room(self, files: ModelFiles) -> None:
        """Unload idle engines, the least recently used first, until the new one fits."""
        while not room_for(files, self._settings, self._resident):
            if evicted := to_evict(self._slots, self._wishes):
                await self._unload(evicted)
            else:
                self._changed.clear()
                await self._changed.wait()

    @property
    def _resident(self) -> int:
        return sum(slot.engine is not None for slot in self._slots.values())

    async def _unload(self, model: str) -> None:
        slot = self._slots[model]
        async with slot.lock:
            if slot.idle:
                log.info("engine unload", model=model)
                await self._end(slot, orderly=True)
                slot.state = State.MODEL_STATE_COLD

    async def _end(self, slot: ModelSlot, *, orderly: bool) -> None:
        engine, slot.engine = slot.engine, None
        if engine is not None:
            await end_engine(engine, self._home, orderly=orderly)
            metrics.ENGINES.set(self._resident)

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work that outlives whoever asked for it; its failure is in the model's report."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    async def _check(self, model: str) -> None:
        slot = self._slots[model]
        engine = slot.engine
        if engine is None or slot.state != State.MODEL_STATE_LOADED:
            return
        ttl, idle = self._settings.idle_ttl_seconds, time.monotonic() - engine.last_used
        if ttl and slot.idle and idle > ttl and model not in self._wishes.pinned:
            await self._unload(model)
            return
        await self.probe(model, engine)

    async def probe(self, model: str, engine: Engine) -> None:
        """Ask an engine for a sign of life; without one it is lost."""
        from ray.exceptions import RayError

        try:
            await asyncio.wait_for(engine.actor.probe.remote(), self._settings.canary_seconds)
        except TimeoutError:
            await self.lost(model, engine, f"no sign of life for {self._settings.canary_seconds:g} s")
        except RayError as exc:
            await self.lost(model, engine, _own_words(exc))

    def _check_weights(self, model: str, engine: Engine) -> None:
        if fingerprint(engine.files.folder) != engine.files.fingerprint:
            raise WeightsChangedError(
                f"the weight files of {model} in {engine.files.folder} changed since the engine loaded them: "
                "restart the inference service to serve the new ones"
            )

    def _fail(self, model: str, message: str) -> None:
        slot = self._slots[model]
        slot.deaths.clear()
        slot.state, slot.message = State.MODEL_STATE_FAILED, message
        slot.pause_seconds = min(max(self._settings.retry_load_seconds, 2 * slot.pause_seconds), _MAX_PAUSE_SECONDS)
        slot.retry_at = time.monotonic() + slot.pause_seconds
        log.error("model failed", model=model, error=message, retry_seconds=slot.pause_seconds)

    def _end_pauses(self) -> None:
        """A model that failed may be tried again after a pause that doubles each time: no reload loop."""
        for slot in self._slots.values():
            if slot.state == State.MODEL_STATE_FAILED and time.monotonic() >= slot.retry_at:
                slot.state = State.MODEL_STATE_COLD


def _own_words(exc: BaseException) -> str:
    cause = getattr(exc, "cause", None)
    if isinstance(exc, TimeoutError):
        return "the engine did not load in time"
    text = str(cause if isinstance(cause, Exception) else exc).strip()
    return (text.splitlines()[-1] if text else type(exc).__name__)[:500]

"""Keeps engines warm: one named Ray actor a model, loaded on demand, unloaded when idle, replaced when dead."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.inference import metrics, orphans, reports
from services.inference.actor import EngineActor
from services.inference.engine_config import EngineConfig
from services.inference.gate import Gate
from services.inference.memory import room_for
from services.inference.models import Catalog, ModelFiles, ModelUnusableError, engine_build
from services.inference.rayenv import NAMESPACE
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
_SHUTDOWN_SECONDS = 10.0


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
        self._released = asyncio.Event()
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
        settings = self._settings
        return EngineConfig(
            model=files.model,
            path=str(files.folder),
            device=settings.engine,
            window=files.window,
            dtype=files.dtype,
            kv_cache_bytes=settings.kv_bytes,
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=max(settings.max_num_batched_tokens, settings.max_num_seqs),
            compile=settings.compiled,
        )

    @asynccontextmanager
    async def hold(self, model: str) -> AsyncGenerator[Engine]:
        """An engine for the model, loaded if need be, and not unloaded while held.

        Raises:
            EngineUnavailableError: it cannot be loaded.
            WeightsChangedError: its weight files changed since it was loaded.
        """
        engine = await self._loaded(model)
        engine.users += 1
        try:
            self._check_weights(model, engine)
            yield engine
        finally:
            engine.users -= 1
            engine.last_used = time.monotonic()
            self._released.set()

    def proved(self, model: str) -> None:
        """The engine answered rows: its deaths no longer count in a row."""
        self._slots[model].deaths = 0

    async def lost(self, model: str, engine: Engine, message: str) -> None:
        """The engine died: end what is left of it. After three deaths without an answer the model is FAILED."""
        if engine.dead:
            return
        engine.dead, slot = True, self._slots[model]
        async with slot.lock:
            if slot.engine is not engine:
                return
            metrics.ENGINE_DEATHS.labels(model).inc()
            log.error("engine died", model=model, actor=engine.actor_name, error=message)
            await self._end(slot, orderly=False)
            slot.deaths += 1
            slot.state = State.MODEL_STATE_COLD
            if slot.deaths >= _DEATHS_IN_A_ROW:
                self._fail(model, f"the engine died {slot.deaths} times in a row, last: {message}")

    async def watch(self) -> None:
        """Probe engines and unload idle ones, for ever."""
        while True:
            await asyncio.sleep(self._settings.probe_seconds)
            await asyncio.gather(*(self._check(model) for model in self._slots))

    async def close(self) -> None:
        """Unload all engines."""
        for slot in self._slots.values():
            async with slot.lock:
                await self._end(slot, orderly=True)

    async def _loaded(self, model: str) -> Engine:
        slot = self._slot(model)
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
                slot.engine = self._start_actor(slot.files)
                await asyncio.wait_for(slot.engine.actor.load.remote(), self._settings.load_seconds)
        except Exception as exc:  # noqa: BLE001 - vLLM raises anything; its words are the model's state
            await self._end(slot, orderly=False)
            self._fail(model, _own_words(exc))
            return
        slot.state, slot.message, slot.pause_seconds = State.MODEL_STATE_LOADED, "", 0.0
        slot.load_seconds = time.monotonic() - start
        metrics.LOAD_SECONDS.labels(model).observe(slot.load_seconds)
        metrics.ENGINES.set(sum(item.engine is not None for item in self._slots.values()))
        log.info("engine loaded", model=model, seconds=round(slot.load_seconds, 3), digest=slot.files.digest)

    def _start_actor(self, files: ModelFiles) -> Engine:
        import ray

        self._generation += 1
        name = f"engine-{self._generation}-{files.digest[:12]}"
        gpus = 1 if self._settings.engine == "gpu" else 0
        actor_class: Any = ray.remote(self._actor_class)
        actor = actor_class.options(
            name=name, namespace=NAMESPACE, num_cpus=0, num_gpus=gpus, max_concurrency=1000, max_restarts=0
        ).remote(self.config(files))
        return Engine(actor, name, files, self.build)

    async def _make_room(self, files: ModelFiles) -> None:
        """Unload idle engines, the least recently used first, until the new one fits."""
        while not room_for(files, self._settings, sum(slot.engine is not None for slot in self._slots.values())):
            idle = [slot for slot in self._slots.values() if slot.engine and not slot.engine.users]
            if idle:
                await self._unload(min(idle, key=lambda slot: slot.engine.last_used if slot.engine else 0.0))
            elif any(slot.engine for slot in self._slots.values()):
                self._released.clear()
                await self._released.wait()
            else:
                raise ModelUnusableError("the machine has too little free memory for the model, with no engine loaded")

    async def _unload(self, slot: ModelSlot) -> None:
        async with slot.lock:
            if slot.engine and not slot.engine.users:
                log.info("engine unload", model=slot.engine.files.model)
                await self._end(slot, orderly=True)
                slot.state = State.MODEL_STATE_COLD

    async def _end(self, slot: ModelSlot, *, orderly: bool) -> None:
        """End the engine's actor and all its processes."""
        import ray
        from ray.exceptions import RayError

        engine, slot.engine = slot.engine, None
        if engine is None:
            return
        if orderly:
            with contextlib.suppress(TimeoutError, RayError):
                await asyncio.wait_for(engine.actor.shutdown.remote(), _SHUTDOWN_SECONDS)
        ray.kill(engine.actor, no_restart=True)
        # The engine core is a process of its own that outlives a killed actor.
        await asyncio.to_thread(orphans.reap, self._home)
        metrics.ENGINES.set(sum(item.engine is not None for item in self._slots.values()))

    async def _check(self, model: str) -> None:
        slot = self._slots[model]
        engine = slot.engine
        if engine is None or slot.state != State.MODEL_STATE_LOADED:
            return
        ttl, idle = self._settings.idle_ttl_seconds, time.monotonic() - engine.last_used
        if ttl and not engine.users and idle > ttl:
            await self._unload(slot)
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
        slot.state, slot.message, slot.deaths = State.MODEL_STATE_FAILED, message, 0
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

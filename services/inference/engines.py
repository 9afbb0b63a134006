"""Keeps engines warm: named Ray actors, one a replica, loaded on demand, unloaded when idle, replaced when dead."""

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
from services.inference.launch import config_for, end_engine
from services.inference.loader import Loader, Residency
from services.inference.models import Catalog, ModelFiles, ModelUnusableError, engine_build
from services.inference.nodes import is_alive
from services.inference.residency import Wishes
from services.inference.resident import Engine, EngineUnavailableError, ModelSlot, WeightsChangedError
from services.inference.settings import InferenceSettings
from services.inference.words import own_words
from tidemill import telemetry
from tidemill.internal.v1 import records_pb2
from tidemill.v1 import model_service_pb2
from tidemill.weights import fingerprint

__all__ = ["Engines"]

log = telemetry.logger(__name__)

State = model_service_pb2.ModelState
_DEATHS_IN_A_ROW = 3
# A suspect is expected to kill its engine, again and again while it is halved: that is not yet the model's fault.
_DEATHS_ALONE_IN_A_ROW = 20


class Engines:
    """The engines of this worker. All methods belong to one event loop; `actor_class` has `EngineActor`'s methods."""

    def __init__(
        self, settings: InferenceSettings, catalog: Catalog, home: Path, actor_class: type = EngineActor
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._home = home
        self._slots = {model: ModelSlot() for model in catalog.models}
        self._wishes = Wishes()
        self._background: set[asyncio.Task[Any]] = set()
        residency = Residency(self._slots, lambda: self._wishes, self._unload_one)
        self._loader = Loader(settings, actor_class, home, residency)
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
        for slot in self._slots.values():
            slot.end_pause()
        return [reports.model_report(model, slot, self.build) for model, slot in self._slots.items()]

    def health(self) -> dict[str, dict[str, Any]]:
        """What `/readyz` says of each model."""
        return {
            model: reports.model_health(slot, self._settings.replicas_of(model)) for model, slot in self._slots.items()
        }

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
        """The least busy engine of the model, loaded if need be, and not unloaded while held.

        Raises:
            EngineUnavailableError: none can be loaded.
            WeightsChangedError: its weight files changed since it was loaded.
        """
        slot = self._slot(model)
        slot.waiting += 1
        try:
            # Whoever waits may give up; the load goes on, for the next.
            await asyncio.shield(self._start(self._loaded(model, slot)))
            engine = slot.least_busy
            if engine is None:
                raise EngineUnavailableError(f"the engine of {model} died before the chunk reached it")
            engine.users += 1
        finally:
            slot.waiting -= 1
        try:
            self._check_weights(model, engine)
            yield engine
        finally:
            engine.users -= 1
            engine.last_used = time.monotonic()
            self._loader.freed.set()

    def proved(self, model: str) -> None:
        """The engine answered rows: its deaths no longer count in a row."""
        self._slots[model].deaths.clear()

    async def lost(self, model: str, engine: Engine, message: str) -> None:
        """The engine died: end what is left of it. After three deaths without an answer the model is FAILED.

        The death of its node counts against nobody.
        """
        if engine.dead:
            await engine.judged.wait()
            return
        engine.dead, slot = True, self._slots[model]
        alone = slot.gate.alone
        engine.node_died = not await asyncio.to_thread(is_alive, engine.node_id)
        engine.judged.set()
        metrics.ENGINE_DEATHS.labels(model).inc()
        log.error("engine died", model=model, actor=engine.actor_name, node_died=engine.node_died, error=message)
        async with slot.lock:
            await self._end(slot, engine, orderly=False)
            slot.died += 1
            slot.deaths[alone] += not engine.node_died
            if not slot.live:
                slot.state = State.MODEL_STATE_COLD
                if slot.deaths[alone] >= (_DEATHS_ALONE_IN_A_ROW if alone else _DEATHS_IN_A_ROW):
                    self._fail(model, f"the engine died {slot.deaths.total()} times in a row, last: {message}")
        self._grow(model)

    def wish(self, wishes: Wishes) -> None:
        """Load what is pinned and unload what is drained, behind the caller's back; repeated about every second."""
        if wishes != self._wishes:
            log.info("models wished", pinned=sorted(wishes.pinned), drained=sorted(wishes.drained))
            for model in wishes.asked_anew(self._wishes) & self._slots.keys():
                self._slots[model].try_again()
            self._wishes = wishes
            self._loader.freed.set()
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
        """Probe engines, unload idle ones and bring replicas back, for ever."""
        while True:
            await asyncio.sleep(self._settings.probe_seconds)
            await asyncio.gather(*(self._check(model) for model in self._slots))

    async def close(self, *, orderly: bool = True) -> None:
        """Unload all engines; when not `orderly`, without asking them."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for slot in self._slots.values():
            await asyncio.gather(*(self._end(slot, engine, orderly=orderly) for engine in list(slot.engines)))

    async def _loaded(self, model: str, slot: ModelSlot) -> None:
        """Return once an engine of the model is up."""
        async with slot.lock:
            slot.end_pause()
            if slot.state == State.MODEL_STATE_FAILED:
                raise EngineUnavailableError(slot.message)
            if not slot.live:
                await self._load(model, slot)
            if not slot.live:
                raise EngineUnavailableError(slot.message)
        self._grow(model)

    def _slot(self, model: str) -> ModelSlot:
        slot = self._slots.get(model)
        if slot is None:
            raise EngineUnavailableError(f"this worker does not offer model {model!r}")
        return slot

    async def _load(self, model: str, slot: ModelSlot) -> None:
        slot.state = State.MODEL_STATE_LOADING
        log.info("engine load", model=model)
        try:
            slot.files = await self.ready_files(model)
            engine = await self._loader.load(model, slot.files, evict=True)
        except Exception as exc:  # noqa: BLE001 - vLLM raises anything; its words are the model's state
            self._fail(model, own_words(exc))
            return
        if engine:
            self._up(model, slot, engine)

    def _up(self, model: str, slot: ModelSlot, engine: Engine) -> None:
        engine.build = self.build
        slot.engines.append(engine)
        slot.loaded(engine)
        metrics.ENGINES.set(self._resident)
        log.info(
            "engine loaded",
            model=model,
            node=engine.node_id,
            replicas=len(slot.live),
            seconds=round(engine.load_seconds, 3),
            digest=engine.files.digest,
        )

    def _grow(self, model: str) -> None:
        """Bring another replica up behind the caller's back, where a model in memory has too few."""
        slot, wanted = self._slots[model], self._settings.replicas_of(model)
        if not 0 < len(slot.live) < wanted or model in self._wishes.drained:
            return
        if not slot.growing and time.monotonic() >= slot.grow_at:
            slot.growing = True
            self._start(self._add_replica(model, slot, slot.live[0]))

    async def _add_replica(self, model: str, slot: ModelSlot, fellow: Engine) -> None:
        """Only where there is room: a replica drives no other model out."""
        engine = None
        try:
            # The weights that its fellows answer with, and no others.
            self._check_weights(model, fellow)
            engine = await self._loader.load(model, fellow.files, evict=False)
        except Exception as exc:  # noqa: BLE001 - as above; the model goes on with the replicas it has
            slot.message = f"a replica does not load: {own_words(exc)}"
            log.warning("replica not loaded", model=model, error=own_words(exc))
        finally:
            slot.growing = False
            slot.grow_at = time.monotonic() + (0 if engine else self._settings.retry_load_seconds)
        if engine:
            self._up(model, slot, engine)
            self._grow(model)

    @property
    def _resident(self) -> int:
        return sum(len(slot.engines) for slot in self._slots.values())

    async def _unload(self, model: str) -> None:
        slot = self._slots[model]
        async with slot.lock:
            if slot.idle:
                for engine in slot.live:
                    await self._retire(model, slot, engine)

    async def _unload_one(self, model: str, engine: Engine) -> None:
        slot = self._slots[model]
        async with slot.lock:
            if engine in slot.spare:
                await self._retire(model, slot, engine)

    async def _retire(self, model: str, slot: ModelSlot, engine: Engine) -> None:
        engine.dead, start = True, time.monotonic()
        slot.settle()
        await self._end(slot, engine, orderly=True)
        seconds = time.monotonic() - start
        metrics.UNLOAD_SECONDS.labels(model).observe(seconds)
        log.info("engine unloaded", model=model, actor=engine.actor_name, seconds=round(seconds, 3))

    async def _end(self, slot: ModelSlot, engine: Engine, *, orderly: bool) -> None:
        engine.dead = True
        engine.judged.set()
        await end_engine(engine, self._home, orderly=orderly)
        if engine in slot.engines:
            slot.engines.remove(engine)
        metrics.ENGINES.set(self._resident)
        self._loader.freed.set()

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work that outlives whoever asked for it; its failure is in the model's report."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    async def _check(self, model: str) -> None:
        slot = self._slots[model]
        if slot.state != State.MODEL_STATE_LOADED:
            return
        ttl = self._settings.idle_ttl_seconds
        if ttl and slot.idle and slot.idle_seconds > ttl and model not in self._wishes.pinned:
            await self._unload(model)
            return
        await asyncio.gather(*(self.probe(model, engine) for engine in slot.live))
        self._grow(model)

    async def probe(self, model: str, engine: Engine) -> None:
        """Ask an engine for a sign of life; without one it is lost."""
        from ray.exceptions import RayError

        try:
            await asyncio.wait_for(engine.actor.probe.remote(), self._settings.canary_seconds)
        except TimeoutError:
            await self.lost(model, engine, f"no sign of life for {self._settings.canary_seconds:g} s")
        except RayError as exc:
            await self.lost(model, engine, own_words(exc))

    def _check_weights(self, model: str, engine: Engine) -> None:
        if fingerprint(engine.files.folder) != engine.files.fingerprint:
            raise WeightsChangedError(
                f"the weight files of {model} in {engine.files.folder} changed since the engine loaded them: "
                "restart the inference service to serve the new ones"
            )

    def _fail(self, model: str, message: str) -> None:
        slot = self._slots[model]
        settings = self._settings
        slot.fail(message, settings.retry_load_seconds, settings.load_attempts, lambda: self._catalog.stamp(model))
        log.error("model failed", model=model, error=message, failures=slot.failures, retry_seconds=slot.pause_seconds)

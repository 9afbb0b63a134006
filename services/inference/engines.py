"""Keeps engines warm: named Ray actors, one a replica, loaded on demand, unloaded when idle, replaced when dead."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.inference import metrics, reports
from services.inference.actor import EngineActor
from services.inference.engine_config import EngineConfig
from services.inference.gate import Gate
from services.inference.launch import config_for, reap
from services.inference.models import Catalog, ModelFiles, ModelUnusableError
from services.inference.nodes import is_alive
from services.inference.replicas import Replicas
from services.inference.residency import Wishes
from services.inference.resident import Engine, EngineUnavailableError, ModelSlot
from services.inference.settings import InferenceSettings
from services.inference.store_link import StoreLink
from services.inference.words import own_words
from tidemill import telemetry
from tidemill.internal.v1 import records_pb2
from tidemill.v1 import model_service_pb2

__all__ = ["Engines"]

log = telemetry.logger(__name__)

State = model_service_pb2.ModelState
_DEATHS_IN_A_ROW = 3
# A suspect is expected to kill its engine, again and again while it is halved: that is not yet the model's fault.
_DEATHS_ALONE_IN_A_ROW = 20


class Engines:
    """The engines of this worker. All methods belong to one event loop; `actor_class` has `EngineActor`'s methods."""

    def __init__(
        self,
        settings: InferenceSettings,
        catalog: Catalog,
        store: StoreLink,
        home: Path,
        actor_class: type = EngineActor,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._home = home
        self._replicas = Replicas(settings, catalog, store, home, actor_class)
        self._slots = self._replicas.slots
        self.build = self._replicas.build

    async def describe(self) -> None:
        """Read what is known of each model; an unusable one is FAILED from the start."""
        for model, slot in self._slots.items():
            try:
                slot.files = await self._replicas.files(model, self._catalog.describe)
            except ModelUnusableError as exc:
                self._replicas.fail(model, str(exc))
            except Exception as exc:
                # One model's files must not keep the others from being served.
                log.exception("model cannot be read", model=model)
                self._replicas.fail(model, f"{type(exc).__name__}: {own_words(exc)}")

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
        self._slot(model)
        return await self._replicas.files(model, self._catalog.fetch)

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
            await asyncio.shield(self._replicas.start(self._replicas.loaded(model)))
            engine = slot.least_busy
            if engine is None:
                raise EngineUnavailableError(f"the engine of {model} died before the chunk reached it")
            engine.users += 1
        finally:
            slot.waiting -= 1
        try:
            # The folder may lie on a network.
            await asyncio.to_thread(self._replicas.check_weights, model, engine)
            yield engine
        finally:
            engine.users -= 1
            engine.last_used = time.monotonic()
            self._replicas.freed.set()

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
        # Not under the lock: whoever has it may be waiting for the room of this very engine.
        ended = self._replicas.start(self._end_dead(model, slot, engine, message))
        async with slot.lock:
            await ended
            slot.died += 1
            slot.deaths[alone] += not engine.node_died
            if not slot.live:
                slot.state = State.MODEL_STATE_COLD
                if slot.deaths[alone] >= (_DEATHS_ALONE_IN_A_ROW if alone else _DEATHS_IN_A_ROW):
                    self._replicas.fail(model, f"the engine died {slot.deaths.total()} times in a row, last: {message}")
        self._replicas.grow(model)

    def wish(self, wishes: Wishes) -> None:
        """Load what is pinned and unload what is drained, behind the caller's back; repeated about every second."""
        if wishes != self._replicas.wishes:
            log.info("models wished", pinned=sorted(wishes.pinned), drained=sorted(wishes.drained))
            for model in wishes.asked_anew(self._replicas.wishes) & self._slots.keys():
                self._slots[model].try_again()
            self._replicas.wishes = wishes
            self._replicas.freed.set()
        for model in wishes.to_load(self._slots):
            # Told apart from COLD at once, so that the next wish does not start a second load.
            self._slots[model].state = State.MODEL_STATE_LOADING
            self._replicas.start(self._replicas.loaded(model))
        for model in wishes.to_unload(self._slots):
            self._replicas.start(self._replicas.unload(model))

    async def reap(self) -> None:
        """End what engines that Ray Data started left behind."""
        await reap(self._home)

    async def watch(self) -> None:
        """Probe engines, unload idle ones and bring replicas back, for ever."""
        while True:
            await asyncio.sleep(self._settings.probe_seconds)
            await asyncio.gather(*(self._check(model) for model in self._slots))
            await self._replicas.count_spare()

    async def close(self, *, orderly: bool = True) -> None:
        """Unload all engines; when not `orderly`, without asking them."""
        await self._replicas.close(orderly=orderly)

    def _slot(self, model: str) -> ModelSlot:
        slot = self._slots.get(model)
        if slot is None:
            raise EngineUnavailableError(f"this worker does not offer model {model!r}")
        return slot

    async def _check(self, model: str) -> None:
        slot = self._slots[model]
        if slot.state != State.MODEL_STATE_LOADED:
            return
        ttl = self._settings.idle_ttl_seconds
        if ttl and slot.idle and slot.idle_seconds > ttl and model not in self._replicas.wishes.pinned:
            await self._replicas.unload(model)
            return
        await asyncio.gather(*(self.probe(model, engine) for engine in slot.live))
        self._replicas.grow(model)

    async def _end_dead(self, model: str, slot: ModelSlot, engine: Engine, message: str) -> None:
        try:
            engine.node_died = not await asyncio.to_thread(is_alive, engine.node_id)
        except Exception as exc:  # noqa: BLE001 - Ray raises anything when its head is away; the engine is dead anyhow
            log.warning("node of a dead engine unknown", node=engine.node_id, error=own_words(exc))
        engine.judged.set()
        metrics.ENGINE_DEATHS.labels(model).inc()
        log.error("engine died", model=model, actor=engine.actor_name, node_died=engine.node_died, error=message)
        await self._replicas.end(slot, engine, orderly=False)

    async def probe(self, model: str, engine: Engine) -> None:
        """Ask an engine for a sign of life; without one it is lost."""
        from ray.exceptions import RayError

        try:
            await asyncio.wait_for(engine.actor.probe.remote(), self._settings.canary_seconds)
        except TimeoutError:
            await self.lost(model, engine, f"no sign of life for {self._settings.canary_seconds:g} s")
        except RayError as exc:
            await self.lost(model, engine, own_words(exc))

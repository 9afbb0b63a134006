"""Brings the engines of models up, adds replicas, and ends them: named Ray actors, one a replica."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from services.inference import metrics
from services.inference.launch import end_engine
from services.inference.loader import Loader, Residency
from services.inference.models import Catalog, ModelFiles, engine_build, publish_tokenizer
from services.inference.residency import Wishes
from services.inference.resident import Engine, EngineUnavailableError, ModelSlot, WeightsChangedError
from services.inference.settings import InferenceSettings
from services.inference.store_link import StoreLink
from services.inference.words import own_words
from tidemill import telemetry
from tidemill.errors import TidemillError
from tidemill.v1 import model_service_pb2
from tidemill.weights import fingerprint

__all__ = ["Replicas"]

log = telemetry.logger(__name__)

State = model_service_pb2.ModelState


class Replicas:
    """The engines in memory, by model. All methods belong to one event loop; `actor_class` has `EngineActor`'s methods.

    Attributes:
        wishes: what the scheduler wants of the models.
        freed: set when an engine ended or is held no more, so that whoever waits for room looks again.
        build: engine name, version and device.
    """

    def __init__(
        self, settings: InferenceSettings, catalog: Catalog, store: StoreLink, home: Path, actor_class: type
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._home = home
        self._background: set[asyncio.Task[Any]] = set()
        self.slots = {model: ModelSlot() for model in catalog.models}
        self.wishes = Wishes()
        self.build = engine_build(settings.engine)
        residency = Residency(self.slots, lambda: self.wishes, self._unload_one)
        self._loader = Loader(settings, actor_class, home, residency)
        self.freed = self._loader.freed

    async def loaded(self, model: str) -> None:
        """Return once an engine of the model is up; EngineUnavailableError when none comes up."""
        slot = self.slots[model]
        async with slot.lock:
            slot.end_pause()
            if slot.state == State.MODEL_STATE_FAILED:
                raise EngineUnavailableError(slot.message)
            if not slot.live:
                await self._load(model, slot)
            if not slot.live:
                raise EngineUnavailableError(slot.message)
        self.grow(model)

    async def files(self, model: str, look: Callable[[str], ModelFiles]) -> ModelFiles:
        """What `look` finds of the model, once gateways find its tokenizer; a store that is away is waited for, and no
        fault of the model's."""
        slot, files = self.slots[model], await asyncio.to_thread(look, model)
        before = slot.message

        def waits(error: TidemillError) -> None:
            slot.message = f"waits for the object store: {error.message}"

        await self._store.call(lambda: publish_tokenizer(self._store.store, files), asyncio.Event(), waits=waits)
        slot.message = before
        return files

    async def _load(self, model: str, slot: ModelSlot) -> None:
        slot.state = State.MODEL_STATE_LOADING
        log.info("engine load", model=model)
        try:
            slot.files = await self.files(model, self._catalog.fetch)
            engine = await self._loader.load(model, slot.files, evict=True)
        except Exception as exc:  # noqa: BLE001 - vLLM raises anything; its words are the model's state
            self.fail(model, own_words(exc))
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

    def grow(self, model: str) -> None:
        """Bring another replica up behind the caller's back, where a model in memory has too few."""
        slot, wanted = self.slots[model], self._settings.replicas_of(model)
        if not 0 < len(slot.live) < wanted or model in self.wishes.drained:
            return
        if not slot.growing and time.monotonic() >= slot.grow_at:
            slot.growing = True
            self.start(self._add_replica(model, slot, slot.live[0]))

    async def _add_replica(self, model: str, slot: ModelSlot, fellow: Engine) -> None:
        """Only where there is room: a replica drives no other model out."""
        engine = None
        try:
            # The weights that its fellows answer with, and no others.
            self.check_weights(model, fellow)
            engine = await self._loader.load(model, fellow.files, evict=False)
        except Exception as exc:  # noqa: BLE001 - as above; the model goes on with the replicas it has
            slot.message = f"a replica does not load: {own_words(exc)}"
            log.warning("replica not loaded", model=model, error=own_words(exc))
        finally:
            slot.growing = False
            slot.grow_at = time.monotonic() + (0 if engine else self._settings.retry_load_seconds)
        if engine:
            self._up(model, slot, engine)
            self.grow(model)

    async def count_spare(self) -> None:
        """See `Loader.count_spare`."""
        await self._loader.count_spare()

    @property
    def _resident(self) -> int:
        return sum(len(slot.engines) for slot in self.slots.values())

    async def unload(self, model: str) -> None:
        """End the model's engines, unless a lease holds one or waits for one."""
        slot = self.slots[model]
        async with slot.lock:
            if slot.idle:
                for engine in slot.live:
                    await self._retire(model, slot, engine)

    async def _unload_one(self, model: str, engine: Engine) -> None:
        slot = self.slots[model]
        async with slot.lock:
            if engine in slot.spare:
                await self._retire(model, slot, engine)

    async def _retire(self, model: str, slot: ModelSlot, engine: Engine) -> None:
        engine.dead, start = True, time.monotonic()
        slot.settle()
        await self.end(slot, engine, orderly=True)
        seconds = time.monotonic() - start
        metrics.UNLOAD_SECONDS.labels(model).observe(seconds)
        log.info("engine unloaded", model=model, actor=engine.actor_name, seconds=round(seconds, 3))

    async def end(self, slot: ModelSlot, engine: Engine, *, orderly: bool) -> None:
        """End one engine; not `orderly` without asking it. The caller has the slot's lock, or is the last."""
        engine.dead = True
        engine.judged.set()
        await end_engine(engine, self._home, orderly=orderly)
        if engine in slot.engines:
            slot.engines.remove(engine)
        metrics.ENGINES.set(self._resident)
        self.freed.set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work that outlives whoever asked for it; its failure is in the model's report."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    def check_weights(self, model: str, engine: Engine) -> None:
        """WeightsChangedError unless the weight files are those that the engine loaded."""
        if fingerprint(engine.files.folder) != engine.files.fingerprint:
            raise WeightsChangedError(
                f"the weight files of {model} in {engine.files.folder} changed since the engine loaded them: "
                "restart the inference service to serve the new ones"
            )

    def fail(self, model: str, message: str) -> None:
        """FAILED, see `ModelSlot.fail`."""
        slot = self.slots[model]
        settings = self._settings
        slot.fail(message, settings.retry_load_seconds, settings.load_attempts, lambda: self._catalog.stamp(model))
        log.error("model failed", model=model, error=message, failures=slot.failures, retry_seconds=slot.pause_seconds)

    async def close(self, *, orderly: bool) -> None:
        """End all engines; when not `orderly`, without asking them."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for slot in self.slots.values():
            await asyncio.gather(*(self.end(slot, engine, orderly=orderly) for engine in list(slot.engines)))

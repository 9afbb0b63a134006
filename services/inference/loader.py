"""Loads one engine where there is room for it; makes room by unloading idle engines."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.inference import metrics
from services.inference.engine_config import EngineConfig
from services.inference.launch import config_for, end_engine, start_engine
from services.inference.memory import engine_bytes, need_of, smaller
from services.inference.models import ModelFiles, ModelUnusableError
from services.inference.nodes import Need, Node, Placed, choose, gpu_nodes, live_nodes, spare_engines
from services.inference.residency import NoRoomError, Wishes, to_evict
from services.inference.resident import Engine, ModelSlot
from services.inference.settings import InferenceSettings
from services.inference.words import out_of_memory, own_words
from tidemill import telemetry
from tidemill.waiting import wait_for_event

__all__ = ["Loader", "Residency"]

log = telemetry.logger(__name__)

_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Residency:
    """What is in memory, what the scheduler wants of it now, and how an idle engine leaves."""

    slots: Mapping[str, ModelSlot]
    wishes: Callable[[], Wishes]
    unload: Callable[[str, Engine], Awaitable[None]]


class Loader:
    """Loads engines: several nodes at a time, one engine a node. All methods belong to one event loop.

    Args:
        residency: what is in memory and may leave it.
    """

    def __init__(
        self,
        settings: InferenceSettings,
        actor_class: type,
        home: Path,
        residency: Residency,
    ) -> None:
        self._settings = settings
        self._actor_class = actor_class
        self._home = home
        self._residency = residency
        self._coming: dict[str, tuple[str, Engine]] = {}
        self._placing = asyncio.Lock()
        self._node_locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.freed = asyncio.Event()

    async def load(self, model: str, files: ModelFiles, *, evict: bool) -> Engine | None:
        """An engine that answers; None where there is no room, which `evict` makes or waits for.

        Where memory runs out, it is tried once more with a smaller KV cache. Raises what vLLM, Ray or we raise.
        """
        config, start = config_for(self._settings, files), time.monotonic()
        try:
            engine = await self._attempt(model, config, files, evict)
        except Exception as exc:
            less = smaller(config)
            words = own_words(exc)
            if less is None or not (isinstance(exc, NoRoomError) or out_of_memory(words)):
                raise
            log.warning("engine load again, with a smaller KV cache", model=model, error=words, **_kv(less))
            engine = await self._attempt(model, less, files, evict)
            if engine:
                engine.note = f"loaded with a smaller KV cache ({_size(less)}) than configured, after: {words}"
        if engine:
            engine.load_seconds = time.monotonic() - start
            metrics.LOAD_SECONDS.labels(model).observe(engine.load_seconds)
        return engine

    async def _attempt(self, model: str, config: EngineConfig, files: ModelFiles, evict: bool) -> Engine | None:
        need = need_of(config, files, self._settings)
        async with self._placing:
            node = await self._room(model, need, evict)
            if node is None:
                return None
            foreign = bool(self._settings.ray_address)
            engine = start_engine(self._actor_class, config, files, node, foreign=foreign)
            engine.coming_bytes = 0 if engine.gpus else engine_bytes(files, config.kv_cache_bytes)
            self._coming[engine.actor_name] = model, engine
        try:
            async with self._node_locks[node.node_id]:
                await asyncio.wait_for(engine.actor.load.remote(), self._settings.load_seconds)
        except BaseException:
            await asyncio.shield(end_engine(engine, self._home, orderly=False))
            raise
        finally:
            engine.coming_bytes = 0
            del self._coming[engine.actor_name]
            self.freed.set()
        return engine

    async def _room(self, model: str, need: Need, evict: bool) -> Node | None:
        """A node with room; idle engines go, the least recently used first, until there is one."""
        while True:
            nodes = await asyncio.to_thread(live_nodes)
            if (node := choose(nodes, self._placed(), need, model)) or not evict:
                return node
            self.freed.clear()
            if evicted := self._evictable():
                await self._residency.unload(*evicted)
            else:
                # Room comes from outside as well: another process ends, a node joins the cluster.
                await wait_for_event(self.freed, _LOOK_SECONDS)

    async def count_spare(self) -> None:
        """Note for each model how many engines more than its replicas find room. On CPU none do: engines on one machine
        share its cores, and a second one takes from the first."""
        if self._settings.engine != "gpu":
            return
        slots = self._residency.slots
        nodes = await asyncio.to_thread(gpu_nodes)
        for model, slot in slots.items():
            free = spare_engines(nodes, self._placed(), self._settings.tensor_parallel_of(model))
            kept = (name for name, other in slots.items() if name == model or other.live)
            coming = sum(max(0, self._settings.replicas_of(name) - len(slots[name].live)) for name in kept)
            slot.spare_engines = max(0, free - coming)

    def _evictable(self) -> tuple[str, Engine] | None:
        try:
            return to_evict(self._residency.slots, self._residency.wishes())
        except ModelUnusableError:
            if not self._coming:
                raise
            return None

    def _placed(self) -> list[Placed]:
        resident = [(model, engine) for model, slot in self._residency.slots.items() for engine in slot.engines]
        return [
            Placed(engine.node_id, model, engine.gpus, engine.coming_bytes)
            for model, engine in (*resident, *self._coming.values())
        ]


def _kv(config: EngineConfig) -> dict[str, float]:
    return {"kv_cache_bytes": config.kv_cache_bytes, "gpu_share": config.gpu_share}


def _size(config: EngineConfig) -> str:
    return f"{config.kv_cache_bytes >> 20} MiB" if config.kv_cache_bytes else f"{config.gpu_share:g} of the GPU"

"""The inference service put together: Ray, engines, worker."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from services.inference import orphans
from services.inference.daemon import in_thread
from services.inference.engines import Engines
from services.inference.link import SchedulerLink
from services.inference.models import Catalog
from services.inference.rayenv import start_ray, stop_ray
from services.inference.raywatch import watch_ray
from services.inference.resident import EngineUnavailableError, WeightsChangedError
from services.inference.settings import RAY_FOLDERS, InferenceSettings, with_listed
from services.inference.store_link import StoreLink
from services.inference.store_reach import check_reach
from services.inference.warmup import warm_ray_data
from services.inference.worker import Worker, new_worker_id
from tidemill import ops, telemetry
from tidemill.config import CommonSettings
from tidemill.errors import TidemillError
from tidemill.store import attach_store
from tidemill.weights import WeightDigests

__all__ = ["Inference"]

log = telemetry.logger(__name__)


class Inference:
    """`run` serves until `stop` is set. Call it on the main thread: Ray's processes end with the thread that
    started them. `on_started` is called once Ray runs."""

    def __init__(self, common: CommonSettings, settings: InferenceSettings, on_started: Callable[[], None]) -> None:
        self._common = common
        self._on_started = on_started
        self._settings = settings
        self._ray_up = False
        self._store: StoreLink | None = None
        self._link: SchedulerLink | None = None
        self._worker: Worker | None = None
        self._engines: Engines | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Start, work, and end everything that was started."""
        # Leases write files side by side; the default pool has six threads on two cores.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self._settings.slots + 16))
        server = ops.OpsServer(self._settings.http_address, self.readiness)
        options = self._settings.ray_options()
        guard = self._own_processes(options.folder)
        try:
            start_ray(options)
            self._ray_up = True
            if options.address:
                check_reach(self._settings.store_uri(self._common))
            self._on_started()
            ops.write_ready_file(self._common.ready_file, None, server.address)
            await self._serve(stop)
        finally:
            # Without its head, Ray's own end would never come; the process and its guard end what is left.
            if self._ray_up:
                stop_ray(options)
            self._ray_up = False
            guard.close()
            server.close()

    def readiness(self) -> ops.Readiness:
        """Ready while Ray runs, the scheduler answers, the object store is there, and not every model has FAILED."""
        scheduler = self._link is not None and self._link.answered
        store = self._store is not None and not self._store.away
        leases = self._worker.leases if self._worker else 0
        models = self._engines.health() if self._engines else {}
        servable = not models or any(model["state"] != "FAILED" for model in models.values())
        return ops.Readiness(
            self._ray_up and scheduler and store and servable,
            {"ray": self._ray_up, "scheduler": scheduler, "store": store, "leases": leases, "models": models},
        )

    def _own_processes(self, folder: Path) -> orphans.Guard:
        """Reap what an earlier run left, then mark and guard what this one starts."""
        if found := orphans.reap(self._common.home):
            log.warning("orphans reaped", processes=found)
        orphans.sweep(folder.parent, RAY_FOLDERS)
        owner = orphans.claim(self._common.home)
        return orphans.Guard(owner, folder)

    async def _serve(self, stop: asyncio.Event) -> None:
        uri = self._settings.store_uri(self._common)
        store = self._store = StoreLink(attach_store(uri))
        if not await _done_before(stop, _found(store)):
            return
        sources = with_listed(self._settings.sources, self._common.home)
        digests = WeightDigests(self._common.home / "model-digests.json")
        engines = self._engines = Engines(
            self._settings,
            Catalog(sources, digests, self._settings.max_model_len),
            store,
            self._common.home,
        )
        if not await _done_before(stop, engines.describe()):
            return
        self._link = SchedulerLink(self._settings.scheduler, new_worker_id(), self._common.mtls)
        self._worker = Worker(self._settings, engines, self._link, store, uri)
        watching = asyncio.create_task(engines.watch(), name="engine-watch")
        losing = asyncio.create_task(self._watch_ray(), name="ray-watch")
        warming = asyncio.create_task(self._warm(engines), name="warm-up")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        working = asyncio.create_task(self._worker.run(), name="worker")
        log.info("inference serves", models=[source.model for source in sources], pid=os.getpid())
        try:
            await asyncio.wait({working, watching, losing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            self._ray_up = not losing.done()
            self._worker.drain()
            await working
            for task in (watching, losing):
                if task.done():
                    task.result()
        finally:
            for task in (watching, losing, warming, stopping):
                task.cancel()
            await asyncio.wait({watching, losing, warming, stopping})
            if self._ray_up:
                await engines.close()
            await self._link.close()

    async def _watch_ray(self) -> None:
        import ray

        settings = self._settings
        await watch_ray(ray.get_runtime_context().get_node_id(), settings.ray_probe_seconds, settings.ray_lost_seconds)

    async def _warm(self, engines: Engines) -> None:
        await asyncio.to_thread(warm_ray_data)
        for model in self._settings.preloaded:
            # What is wrong with the model is in its report and in the log already.
            with contextlib.suppress(EngineUnavailableError, WeightsChangedError):
                async with engines.hold(model):
                    log.info("model preloaded", model=model)


async def _found(store: StoreLink) -> None:
    """Return once the store is there."""
    try:
        await in_thread(store.store.check)
    except TidemillError as error:
        store.lost(error)
    await store.here()


async def _done_before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` ended before the process is to stop, which cancels it. Raises what it raises."""
    waits = [asyncio.create_task(work), asyncio.create_task(stop.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    done = waits[0].done()
    for wait in waits:
        wait.cancel()
    if done:
        waits[0].result()
    return done

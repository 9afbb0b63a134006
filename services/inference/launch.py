"""Starts the Ray actor of an engine, and ends it with all its processes."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from services.inference import orphans
from services.inference.engine_config import EngineConfig
from services.inference.models import ModelFiles
from services.inference.rayenv import NAMESPACE
from services.inference.resident import Engine
from services.inference.settings import InferenceSettings

__all__ = ["config_for", "end_engine", "start_engine"]

_SHUTDOWN_SECONDS = 10.0


def config_for(settings: InferenceSettings, files: ModelFiles) -> EngineConfig:
    """How an engine for these files is started."""
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
        row_order=settings.row_order,
        tasks=files.tasks,
    )


def start_engine(
    actor_class: type, settings: InferenceSettings, files: ModelFiles, generation: int, build: str
) -> Engine:
    """The actor, which has still to load. `generation` makes its name unique in this process."""
    import ray

    name = f"engine-{generation}-{files.digest[:12]}"
    remote_class: Any = ray.remote(actor_class)
    actor = remote_class.options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        num_gpus=1 if settings.engine == "gpu" else 0,
        max_concurrency=1000,
        max_restarts=0,
    ).remote(config_for(settings, files))
    return Engine(actor, name, files, build)


async def end_engine(engine: Engine, home: Path, *, orderly: bool) -> None:
    """End the engine's actor and all its processes; `orderly` asks the engine first."""
    import ray
    from ray.exceptions import RayError

    if orderly:
        with contextlib.suppress(TimeoutError, RayError):
            await asyncio.wait_for(engine.actor.shutdown.remote(), _SHUTDOWN_SECONDS)
    ray.kill(engine.actor, no_restart=True)
    # The engine core is a process of its own that outlives a killed actor.
    await asyncio.to_thread(orphans.reap, home)

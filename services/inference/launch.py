"""Starts the Ray actor of an engine where it is told to, and ends it with all its processes."""

import asyncio
import contextlib
import itertools
import os
import secrets
from pathlib import Path
from typing import Any

from services.inference import orphans
from services.inference.engine_config import EngineConfig
from services.inference.models import ModelFiles
from services.inference.nodes import Node
from services.inference.rayenv import NAMESPACE
from services.inference.resident import Engine
from services.inference.settings import InferenceSettings
from tidemill import telemetry

__all__ = ["config_for", "end_engine", "reap", "start_engine"]

log = telemetry.logger(__name__)

_SHUTDOWN_SECONDS = 10.0
_CALL_SECONDS = 10.0
# Another process of ours may use the same cluster, or just have ended there.
_RUN = secrets.token_hex(3)
_NUMBERS = itertools.count(1)
# What engines read from the environment, which another machine's Ray does not inherit from us.
_PASSED_ON = ("VLLM_", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY")


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
        tensor_parallel=settings.tensor_parallel_of(files.model),
    )


def start_engine(actor_class: type, config: EngineConfig, files: ModelFiles, node: Node, *, foreign: bool) -> Engine:
    """The actor, which has still to load.

    Args:
        foreign: Ray's processes on the node are not this process's children.
    """
    import ray

    name = f"engine-{_RUN}-{next(_NUMBERS)}-{files.digest[:12]}"
    group = _group(config, node) if config.tensor_parallel > 1 else None
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "max_concurrency": 1000,
        "max_restarts": 0,
        **_where(config, node, group),
    }
    if foreign:
        options["runtime_env"] = {"env_vars": _environment(node)}
    actor = ray.remote(actor_class).options(**options).remote(config)
    gpus = config.tensor_parallel if config.device == "gpu" else 0
    return Engine(actor, name, files, "", node_id=node.node_id, group=group, gpus=gpus)


def _where(config: EngineConfig, node: Node, group: Any) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

    gpu = config.device == "gpu"
    if group is None:
        strategy = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        return {"num_cpus": 0, "num_gpus": int(gpu), "scheduling_strategy": strategy}
    ranks = config.tensor_parallel
    return {
        "num_cpus": 0 if gpu else ranks,
        "num_gpus": ranks if gpu else 0,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
    }


def _group(config: EngineConfig, node: Node) -> Any:
    """One bundle for all ranks: they share a machine, where vLLM starts them itself."""
    from ray.util.placement_group import placement_group

    kind = "GPU" if config.device == "gpu" else "CPU"
    return placement_group(
        [{kind: config.tensor_parallel}],
        strategy="STRICT_PACK",
        bundle_label_selector=[{"ray.io/node-id": node.node_id}],
    )


def _environment(node: Node) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    # The service's own address is not the node's.
    passed.pop("VLLM_HOST_IP", None)
    return {**passed, "OMP_NUM_THREADS": str(max(1, int(node.cpus)))}


async def end_engine(engine: Engine, home: Path, *, orderly: bool) -> None:
    """End the engine's actor, all its processes and its placement group; `orderly` asks the engine first.

    Ray's own calls get a deadline: without its head they would wait for ever.
    """
    from ray.exceptions import RayError

    if orderly:
        with contextlib.suppress(TimeoutError, RayError):
            await asyncio.wait_for(engine.actor.shutdown.remote(), _SHUTDOWN_SECONDS)
    with contextlib.suppress(TimeoutError, RayError):
        await asyncio.wait_for(asyncio.to_thread(_remove, engine), _CALL_SECONDS)
    # The engine core is a process of its own that outlives a killed actor.
    await reap(home)


async def reap(home: Path) -> None:
    """End the processes that engines left behind.

    One that the kernel does not let go of yet is only logged: the next engine that ends, or does not fit, looks again.
    """
    try:
        await asyncio.to_thread(orphans.reap, home)
    except TimeoutError as exc:
        log.error("processes of an engine are still there", error=str(exc))


def _remove(engine: Engine) -> None:
    import ray
    from ray.util.placement_group import remove_placement_group

    ray.kill(engine.actor, no_restart=True)
    if engine.group is not None:
        remove_placement_group(engine.group)

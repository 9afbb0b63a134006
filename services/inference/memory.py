"""How much memory an engine takes, and how it is made to take less."""

from dataclasses import replace

from services.inference.engine_config import EngineConfig
from services.inference.models import ModelFiles
from services.inference.nodes import Need
from services.inference.settings import InferenceSettings
from tidemill.profiles import RUNTIME_BYTES, WEIGHT_FACTOR
from tidemill.weights import weight_bytes

__all__ = ["engine_bytes", "need_of", "smaller"]

# vLLM takes 0.92 of a GPU unless told otherwise; weights have to fit into what is left of that.
_LESS_OF_GPU = 0.6


def engine_bytes(files: ModelFiles, kv_cache_bytes: int) -> int:
    """Memory that an engine for these files will take, roughly."""
    return int(weight_bytes(files.fingerprint) * WEIGHT_FACTOR) + kv_cache_bytes + RUNTIME_BYTES


def need_of(config: EngineConfig, files: ModelFiles, settings: InferenceSettings) -> Need:
    """What a node must offer the engine."""
    ranks = config.tensor_parallel
    if config.device == "gpu":
        return Need(free_bytes=0, gpus=ranks, cpus=0, most=settings.max_engines)
    # On CPU each rank has a cache of its own.
    memory = engine_bytes(files, ranks * config.kv_cache_bytes) + (ranks - 1) * RUNTIME_BYTES
    return Need(memory + settings.reserve_bytes, 0, ranks if ranks > 1 else 0, settings.max_engines)


def smaller(config: EngineConfig) -> EngineConfig | None:
    """The same with a smaller KV cache: half of one of a given size, less of a GPU whose share vLLM chose."""
    if config.kv_cache_bytes:
        return replace(config, kv_cache_bytes=config.kv_cache_bytes // 2)
    if config.device == "gpu" and not config.gpu_share:
        return replace(config, gpu_share=_LESS_OF_GPU)
    return None

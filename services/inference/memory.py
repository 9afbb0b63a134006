"""Whether another engine fits into memory."""

import psutil

from services.inference.models import ModelFiles
from services.inference.settings import InferenceSettings

__all__ = ["engine_bytes", "room_for"]

# Python, torch and vLLM in the actor and the engine core, before any weight is read (measured: 1.2 GiB together).
_RUNTIME_BYTES = 1300 << 20
_WEIGHT_FACTOR = 1.2


def engine_bytes(files: ModelFiles, settings: InferenceSettings) -> int:
    """Memory that an engine for these files will take, roughly."""
    weights = sum(size for _, size, _ in files.fingerprint)
    return int(weights * _WEIGHT_FACTOR) + settings.kv_bytes + _RUNTIME_BYTES


def room_for(files: ModelFiles, settings: InferenceSettings, resident: int) -> bool:
    """Whether an engine may be added to those resident."""
    if resident >= settings.max_engines:
        return False
    if settings.engine == "gpu":
        return resident == 0  # vLLM takes its share of the GPU at start; sharing it comes with the GPU profile
    return psutil.virtual_memory().available >= engine_bytes(files, settings) + settings.reserve_bytes

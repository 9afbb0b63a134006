"""Environment variables that Ray, vLLM and the hub client read at import; their processes inherit them."""

import os
from pathlib import Path

from services.inference.engine_config import Device

__all__ = ["prepare_environment"]

_ROOT = Path(__file__).parents[2]

_NO_USAGE_REPORTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

_QUIET = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "RAY_worker_niceness": "0",  # Ray's default of 15 costs a tenth of the rate
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare_environment(device: Device) -> None:
    """Set what is needed before Ray or vLLM is imported. What the operator set stays, but for usage reports: those
    are off."""
    os.environ.update(_NO_USAGE_REPORTS)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if device == "cpu":
        _prepare_cpu()
    # Ray's workers import our modules wherever they were started from.
    paths = [str(_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def _prepare_cpu() -> None:
    # One process less for each engine: the model runs in the engine core itself.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    # Ray would give each worker as many threads as it reserves CPUs, which is none for an engine.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    # Threads that spin at barriers take the cores from Ray, Dagster and the other processes of a small machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

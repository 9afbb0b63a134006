"""Models from the Hugging Face hub: its own cache (`HF_HOME`), proxies and resumed downloads; progress in the log."""

import threading
from typing import Any

from tidemill import telemetry

__all__ = ["fetch_description", "fetch_weights"]

log = telemetry.logger(__name__)

_DESCRIPTION = ["*.json", "*.jinja", "*.txt", "*.model"]
_REPORT_SECONDS = 5.0


def fetch_description(name: str) -> str:
    """Folder with a model's configuration and tokenizer; OSError when the hub does not give it."""
    return _snapshot(name, _DESCRIPTION)


def fetch_weights(name: str, revision: str = "") -> str:
    """Folder with the whole model; downloads what is missing.

    Args:
        revision: branch, tag or commit; empty means the hub's default branch.

    Raises:
        OSError: neither the hub nor the local cache has it.
    """
    pattern, size = _weight_files(name, revision)
    log.info("model download", model=name, weight_bytes=size)
    with _Progress(name, size):
        return _snapshot(name, [pattern, *_DESCRIPTION], revision)


def _weight_files(name: str, revision: str) -> tuple[str, int]:
    """Which files hold the weights, and their size in bytes; 0 when the hub cannot be asked."""
    import httpx
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(name, revision=revision or None, files_metadata=True).siblings or []
    except (OSError, httpx.HTTPError) as exc:
        log.warning("hub not reachable, trying the local cache", model=name, error=str(exc))
        return "*.safetensors", 0
    for suffix in (".safetensors", ".bin"):
        if sizes := [item.size or 0 for item in files if item.rfilename.endswith(suffix)]:
            return f"*{suffix}", sum(sizes)
    return "*.safetensors", 0


def _snapshot(name: str, patterns: list[str], revision: str = "") -> str:
    import httpx
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, revision=revision or None, allow_patterns=patterns)
    except (OSError, httpx.HTTPError):
        return snapshot_download(name, revision=revision or None, allow_patterns=patterns, local_files_only=True)


class _Progress:
    """Logs how much of a model has arrived."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._report, name="hub-progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_exc: Any) -> None:
        self._done.set()
        self._thread.join()

    def _report(self) -> None:
        while not self._done.wait(_REPORT_SECONDS):
            log.info("model download", model=self._name, bytes=_cached_bytes(self._name), weight_bytes=self._size)


def _cached_bytes(name: str) -> int:
    from pathlib import Path

    from huggingface_hub.constants import HF_HUB_CACHE

    blobs = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    return sum(path.stat().st_size for path in blobs.glob("*")) if blobs.is_dir() else 0

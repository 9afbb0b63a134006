"""The models that `tidemill models add` made known: `models.json` in the home folder, read by the inference service."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tidemill.errors import Reason, TidemillError

_FILE = "models.json"


@dataclass(frozen=True)
class ListedModel:
    """A model on this machine.

    Attributes:
        id: what jobs name.
        path: folder with weights, configuration and tokenizer.
        source: what was given: the folder, or a name on the hub.
        revision: the hub's branch, tag or commit that was asked for; empty without one.
        digest: SHA-256 (hex) over the weight files when it was added.
    """

    id: str
    path: str
    source: str
    revision: str = ""
    digest: str = ""


def read_models(home: Path) -> list[ListedModel]:
    """The listed models by id; none without a list. INVALID_FILE when the list cannot be read."""
    path = home / _FILE
    try:
        return [ListedModel(**item) for item in json.loads(path.read_bytes())["models"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TidemillError(
            Reason.INVALID_FILE, f"cannot read {path}: {exc}; remove it and add the models again"
        ) from None


def write_models(home: Path, models: Sequence[ListedModel]) -> None:
    """Replace the list."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = home / f".{_FILE}.{os.getpid()}"
    listed = [asdict(model) for model in sorted(models, key=lambda model: model.id)]
    partial.write_text(json.dumps({"version": 1, "models": listed}, indent=1) + "\n")
    partial.replace(home / _FILE)


def check_folder(folder: Path) -> None:
    """INVALID_FILE unless the folder holds what an engine needs: configuration, weights, tokenizer."""
    from tidemill.weights import fingerprint, no_weights

    if not folder.is_dir():
        raise TidemillError(
            Reason.INVALID_FILE, f"{folder} is not a folder; name a model's folder, or a hub name such as org/model"
        )
    if not _is_json(folder / "config.json"):
        raise TidemillError(Reason.INVALID_FILE, f"{folder} has no readable config.json: it is not a model's folder")
    if not fingerprint(folder):
        raise TidemillError(Reason.INVALID_FILE, no_weights(folder))
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise TidemillError(Reason.INVALID_FILE, f"{folder} has no tokenizer (tokenizer.json): copy it there")


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False

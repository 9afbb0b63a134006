"""`tidemill models add`, `remove` and `digest`: models on this machine, with or without a running service."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.console import emit, emit_json
from tidemill.cli.options import Json
from tidemill.errors import Reason, TidemillError

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="Folder of a model, or its name on the hub: org/model.")]
Named = Annotated[str, typer.Argument(metavar="MODEL", help="Id of a listed model.")]


def add(
    source: Source,
    *,
    model_id: Annotated[str, typer.Option("--id", help="Id that jobs name. Default: the folder's or hub name.")] = "",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the hub; its files stay as they are.")] = "",
    as_json: Json = False,
) -> None:
    """Offer a model: check its files, download them where needed, take its digest and list it for the service.

    The inference service of this TIDEMILL_HOME serves it from its next start on.
    """
    from tidemill.client.settings import home_folder
    from tidemill.model_list import ListedModel, check_folder, read_models, write_models

    home, folder = home_folder(), _folder(source, revision)
    check_folder(folder)
    here = Path(source).expanduser().is_dir()
    name = _checked_id(model_id or (folder.name if here else source))
    model = ListedModel(name, str(folder), str(folder) if here else source, revision, _digest(home, folder))
    others = [item for item in read_models(home) if item.id != model.id]
    write_models(home, [*others, model])
    if as_json:
        emit_json(asdict(model))
    else:
        emit(f"{model.id} at {model.path} (weights sha256 {model.digest})")
        emit("served once the inference service is started again: tidemill up")


def remove(model: Named, as_json: Json = False) -> None:
    """Take a model off the list; its files stay. A running service serves it until it is started again."""
    from tidemill.client.settings import home_folder
    from tidemill.model_list import read_models, write_models

    home = home_folder()
    listed = read_models(home)
    if model not in {item.id for item in listed}:
        known = ", ".join(item.id for item in listed) or "none"
        raise TidemillError(Reason.INVALID_ARGUMENT, f"model {model!r} is not listed in {home}; listed: {known}")
    write_models(home, [item for item in listed if item.id != model])
    emit_json({"id": model, "removed": True}) if as_json else emit(f"{model} removed from the list")


def digest(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, or an id that the service offers.")],
    as_json: Json = False,
) -> None:
    """Print the SHA-256 over a model's weight files: of a folder here, or as the workers report it."""
    from tidemill.client.settings import home_folder

    folder = Path(model).expanduser()
    if folder.is_dir():
        found = {"path": str(folder.resolve()), "digest": _folder_digest(home_folder(), folder.resolve())}
    else:
        found = {"model": model, "digest": _reported_digest(model)}
    emit_json(found) if as_json else emit(found["digest"])


def _folder(source: str, revision: str) -> Path:
    """The model's folder, downloaded where `source` is a hub name."""
    path = Path(source).expanduser()
    if path.is_dir() or source.startswith(("/", ".", "~")):
        if revision:
            raise TidemillError(Reason.INVALID_ARGUMENT, "--revision is for models of the hub, not for folders")
        return path.resolve()
    _log_to_stderr()
    try:
        from tidemill.hub import fetch_weights

        return Path(fetch_weights(source, revision))
    except (OSError, ValueError) as exc:
        at = f" at revision {revision}" if revision else ""
        raise TidemillError(
            Reason.UNAVAILABLE,
            f"{source}{at} is neither a folder here nor a model that the hub gives: {_first_line(exc)}; check the name "
            "and the network (HTTPS_PROXY, HF_ENDPOINT, HF_TOKEN), or copy the model here and name its folder",
        ) from None


def _first_line(exc: Exception) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(exc).__name__


def _log_to_stderr() -> None:
    """The download reports in log lines; standard output is for the answer."""
    import structlog

    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def _checked_id(name: str) -> str:
    from tidemill.names import parse_model

    if any(sign in name for sign in ",=") or name != name.strip():
        raise TidemillError(Reason.INVALID_ARGUMENT, f"--id {name!r} must have no comma, '=' or space around it")
    return parse_model(f"models/{name}")


def _folder_digest(home: Path, folder: Path) -> str:
    from tidemill.weights import no_weights

    found = _digest(home, folder)
    if not found:
        raise TidemillError(Reason.INVALID_FILE, no_weights(folder))
    return found


def _digest(home: Path, folder: Path) -> str:
    """Read once; the service's own cache of digests remembers it."""
    from tidemill.weights import WeightDigests, fingerprint

    files = fingerprint(folder)
    return WeightDigests(home / "model-digests.json").digest(folder, files) if files else ""


def _reported_digest(name: str) -> str:
    from tidemill.client import Client

    with Client() as client:
        models = {item.name.removeprefix("models/"): item for item in client.models()}
    if name not in models:
        known = ", ".join(models) or "none"
        raise TidemillError(
            Reason.MODEL_NOT_FOUND, f"{name!r} is neither a folder nor a model that a worker offers; offered: {known}"
        )
    if not models[name].digest:
        raise TidemillError(
            Reason.UNAVAILABLE, f"the weights of {name} are not at a worker yet: tidemill models warm {name}"
        )
    return models[name].digest

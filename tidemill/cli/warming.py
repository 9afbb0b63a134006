"""`tidemill models warm`: load a model before the first job needs it."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import emit, emit_json
from tidemill.cli.options import Json
from tidemill.errors import Reason, TidemillError

if TYPE_CHECKING:
    from tidemill.client import Client
    from tidemill.v1 import model_service_pb2

_LOOK_SECONDS = 0.5


def warm(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As `tidemill models list` names it.")],
    *,
    timeout: Annotated[float, typer.Option(min=1, help="Give up after so many seconds; the load goes on.")] = 1200.0,
    as_json: Json = False,
) -> None:
    """Load a model at the workers that offer it and wait until one has it. Admin keys only.

    It leaves memory again when it was idle for long; `tidemill models pin` keeps it.
    """
    from tidemill.client import Client

    started = time.monotonic()
    with Client() as client:
        before = _offered(client, model)
        client.admin.pin(model)
        try:
            loaded = _loaded(client, before, started + timeout)
        finally:
            if not before.pinned:
                client.admin.unpin(model)
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        emit_json({"model": model, "seconds": seconds, "digest": loaded.digest, "engine_build": loaded.engine_build})
    else:
        emit(f"{model} is loaded, after {seconds:g} s ({loaded.engine_build})")


def _offered(client: "Client", name: str) -> "model_service_pb2.Model":
    models = {model.name.removeprefix("models/"): model for model in client.models()}
    if name in models:
        if models[name].drained:
            raise TidemillError(Reason.MODEL_DRAINED, f"{name} is drained: tidemill models undrain {name}")
        return models[name]
    known = ", ".join(models) or "none"
    raise TidemillError(Reason.MODEL_NOT_FOUND, f"no worker offers a model {name!r}; offered: {known}")


def _loaded(client: "Client", before: "model_service_pb2.Model", end: float) -> "model_service_pb2.Model":
    """The model once a worker has it. A failure of before may be all there is to see until the next try."""
    from tidemill.v1.model_service_pb2 import MODEL_STATE_FAILED, MODEL_STATE_LOADED

    name, old = before.name.removeprefix("models/"), before.state == MODEL_STATE_FAILED
    while True:
        model = _offered(client, name)
        if model.state == MODEL_STATE_LOADED:
            return model
        old = old and model.state == MODEL_STATE_FAILED
        if model.state == MODEL_STATE_FAILED and not old:
            raise TidemillError(Reason.UNAVAILABLE, f"{name} does not load: {model.message}")
        if time.monotonic() > end:
            said = f": {model.message}" if model.message else ""
            raise TidemillError(Reason.DEADLINE_EXCEEDED, f"{name} was not loaded in time{said}; the load goes on")
        time.sleep(_LOOK_SECONDS)

"""`tidemill models`: what the service offers, what the operator may change of it, and models on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli import model_files, warming
from tidemill.cli.completion import complete_model
from tidemill.cli.console import emit, emit_json, emit_table
from tidemill.cli.options import Json

if TYPE_CHECKING:
    from tidemill.v1 import model_service_pb2

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="As `tidemill models list` names it.", autocompletion=complete_model),
]


class Kind(StrEnum):
    """What a tiny model does."""

    GENERATOR = "generator"
    EMBEDDER = "embedder"
    CLASSIFIER = "classifier"
    SCORER = "scorer"


app = typer.Typer(
    help="Models that the service offers, and models on this machine.", no_args_is_help=True, rich_markup_mode=None
)
app.command("add")(model_files.add)
app.command("remove")(model_files.remove)
app.command("digest")(model_files.digest)
app.command("warm")(warming.warm)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the models that live workers offer."""
    from tidemill.client import Client

    with Client() as client:
        models = client.models()
    if as_json:
        emit_json([_fields(model) for model in models])
        return
    header = ("MODEL", "STATE", "WINDOW", "WORKERS", "CHUNKS", "TOKENS/S", "FLAGS", "ENGINE", "MESSAGE")
    emit_table(header, [_cells(model) for model in models])


@app.command("drain")
def drain(model: Model, as_json: Json = False) -> None:
    """Give a model no new work; what is at workers is finished, then it leaves their memory. Admin keys only."""
    from tidemill.client import Client

    with Client() as client:
        _print(client.admin.drain(model), as_json=as_json)


@app.command("undrain")
def undrain(model: Model, as_json: Json = False) -> None:
    """End a drain. Admin keys only."""
    from tidemill.client import Client

    with Client() as client:
        _print(client.admin.undrain(model), as_json=as_json)


@app.command("pin")
def pin(model: Model, as_json: Json = False) -> None:
    """Keep a model loaded at the workers that offer it. Admin keys only."""
    from tidemill.client import Client

    with Client() as client:
        _print(client.admin.pin(model), as_json=as_json)


@app.command("unpin")
def unpin(model: Model, as_json: Json = False) -> None:
    """End a pin. Admin keys only."""
    from tidemill.client import Client

    with Client() as client:
        _print(client.admin.unpin(model), as_json=as_json)


@app.command("make-tiny")
def make_tiny(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder to create.")],
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal weights.")] = 0,
    kind: Annotated[Kind, typer.Option(help="What it does.")] = Kind.GENERATOR,
    as_json: Json = False,
) -> None:
    """Make a small random model for tests and demonstrations. Its answers are gibberish."""
    from tidemill import tiny_model, tiny_pooling

    if kind is Kind.GENERATOR:
        digest = tiny_model.make_tiny(path, seed)
    else:
        digest = tiny_pooling.make_tiny_pooling(path, kind.value, seed)
    emit_json({"path": str(path), "sha256": digest}) if as_json else emit(f"{path} (weights sha256 {digest})")


def _cells(model: "model_service_pb2.Model") -> tuple[str, ...]:
    from tidemill.v1.model_service_pb2 import ModelState

    return (
        model.name.removeprefix("models/"),
        ModelState.Name(model.state).removeprefix("MODEL_STATE_"),
        str(model.max_model_len),
        str(model.workers),
        str(model.chunks_leased),
        f"{model.tokens_per_second:.0f}" if model.tokens_per_second else "-",
        _flags(model) or "-",
        model.engine_build or "-",
        model.message or "-",
    )


def _flags(model: "model_service_pb2.Model") -> str:
    return ",".join(name for name in ("drained", "pinned") if getattr(model, name))


def _fields(model: "model_service_pb2.Model") -> dict[str, object]:
    from google.protobuf import json_format

    return json_format.MessageToDict(model, preserving_proto_field_name=True)


def _print(model: "model_service_pb2.Model", *, as_json: bool) -> None:
    name = model.name.removeprefix("models/")
    emit_json(_fields(model)) if as_json else emit(f"{name} {_flags(model) or 'neither drained nor pinned'}")

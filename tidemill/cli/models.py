"""`tidemill models`."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.console import emit, emit_json, emit_table
from tidemill.cli.options import Json

app = typer.Typer(help="Models that the service offers.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the models that live workers offer."""
    from google.protobuf import json_format

    from tidemill.client import Client
    from tidemill.v1.model_service_pb2 import ModelState

    with Client() as client:
        models = client.models()
    if as_json:
        emit_json([json_format.MessageToDict(model, preserving_proto_field_name=True) for model in models])
        return
    rows = [
        (
            model.name.removeprefix("models/"),
            ModelState.Name(model.state).removeprefix("MODEL_STATE_"),
            str(model.max_model_len),
            str(model.workers),
            model.engine_build or "-",
            model.message or "-",
        )
        for model in models
    ]
    emit_table(("MODEL", "STATE", "WINDOW", "WORKERS", "ENGINE", "MESSAGE"), rows)


@app.command("make-tiny")
def make_tiny(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder to create.")],
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a small random Qwen2 for tests and demonstrations. Its answers are gibberish."""
    from tidemill import tiny_model

    digest = tiny_model.make_tiny(path, seed)
    emit_json({"path": str(path), "sha256": digest}) if as_json else emit(f"{path} (weights sha256 {digest})")

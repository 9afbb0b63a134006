"""`tidemill keys`: API keys of the gateway on this machine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.console import emit, emit_json, emit_table, note
from tidemill.cli.options import Json

app = typer.Typer(help="API keys of the gateway on this machine.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[
    Path | None, typer.Option("--file", help="The gateway's keys file. Default: keys.json below TIDEMILL_HOME.")
]


@app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Whose key: 1 to 63 of a-z, 0-9 and -.")] = "dev",
    admin: Annotated[
        bool, typer.Option("--admin", help="May also use `tidemill admin` and change models, for every tenant.")
    ] = False,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Make a key, store its hash, and print the key, which cannot be shown again.

    The hash needs the gateway's pepper: TIDEMILL_GATEWAY_KEY_PEPPER, else the one that `tidemill up` made.
    """
    from tidemill.keys import create_key

    key = create_key(_path(file), _pepper(), tenant, admin=admin)
    note("keep this key: only its hash is stored")
    emit_json({"tenant": tenant, "admin": admin, "key": key}) if as_json else emit(key)


@app.command("list")
def list_(file: File = None, as_json: Json = False) -> None:
    """List the keys: public id, tenant, admin or not, when made."""
    from tidemill.keys import list_keys

    records = list_keys(_path(file))
    if as_json:
        names = ("id", "tenant", "admin", "create_time")
        emit_json([{name: getattr(item, name) for name in names} for item in records])
    else:
        rows = [(item.id, item.tenant, "yes" if item.admin else "no", item.create_time) for item in records]
        emit_table(("ID", "TENANT", "ADMIN", "CREATED"), rows)


def _path(file: Path | None) -> Path:
    from tidemill.client.settings import home_folder

    return file or Path(os.environ.get("TIDEMILL_GATEWAY_KEYS_FILE") or home_folder() / "keys.json")


def _pepper() -> str:
    from tidemill.client.settings import home_folder
    from tidemill.up.home import Home

    if pepper := os.environ.get("TIDEMILL_GATEWAY_KEY_PEPPER"):
        return pepper
    home = Home(home_folder())
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home.pepper()

"""`tidemill keys`: API keys of the gateway on this machine."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tidemill.cli.console import emit, emit_json, emit_table, note
from tidemill.cli.options import Json
from tidemill.errors import Reason, TidemillError

if TYPE_CHECKING:
    from tidemill.keys import KeyRecord, Scope

_LONGEST_SECONDS = 3660 * 86_400

app = typer.Typer(help="API keys of the gateway on this machine.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[
    Path | None, typer.Option("--file", help="The gateway's keys file. Default: keys.json below TIDEMILL_HOME.")
]

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's public id, as `tidemill keys list` shows it.")]


@app.command("create")
def create(
    *,
    tenant: Annotated[str, typer.Option(help="Whose key: 1 to 63 of a-z, 0-9 and -.")] = "dev",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help="submit, read, feed or admin; may be repeated. Default: submit, read and feed.",
            metavar="SCOPE",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="Stop working after so long: 12h, 90d. Default: never.", metavar="TIME"),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="Every scope: may use `tidemill admin` and change models, for every tenant.")
    ] = False,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Make a key, store its hash, and print the key, which cannot be shown again.

    The hash needs the gateway's pepper: TIDEMILL_GATEWAY_KEY_PEPPER, else the one that `tidemill up` made.
    """
    from tidemill.keys import create_key

    scopes, lifetime = _scopes(scope or []), _duration(expires) if expires is not None else None
    key = create_key(_path(file), _pepper(), tenant, admin=admin, scopes=scopes, lifetime=lifetime)
    _show_new(key, file, as_json)


@app.command("list")
def list_(file: File = None, as_json: Json = False) -> None:
    """List the keys: public id, tenant, scopes, state, when made, when it ends, when last used (a minute late)."""
    from tidemill.key_use import read_uses
    from tidemill.keys import list_keys

    path = _path(file)
    uses = read_uses(path)
    keys = [_shown(record, uses.get(record.id, "")) for record in list_keys(path)]
    if as_json:
        emit_json(keys)
    else:
        header = ("ID", "TENANT", "SCOPES", "STATE", "CREATED", "EXPIRES", "LAST USED")
        columns = ("id", "tenant", "scopes", "state", "create_time", "expire_time", "last_use_time")
        emit_table(header, [[_cell(key[column]) for column in columns] for key in keys])


@app.command("rotate")
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option("--overlap", help="The old secret works for so long more: 1h, 7d, or 0s.", metavar="TIME")
    ] = "1d",
    file: File = None,
    as_json: Json = False,
) -> None:
    """Give a key a new secret and print the new key; both work during the overlap.

    A secret older than the one replaced stops working at once.
    """
    from tidemill.keys import rotate_key

    key = rotate_key(_path(file), _pepper(), key_id, _duration(overlap, least=0))
    note(f"the old secret works for {overlap} more")
    _show_new(key, file, as_json)


@app.command("revoke")
def revoke(key_id: KeyId, file: File = None, as_json: Json = False) -> None:
    """End a key for good, its open streams within five seconds too; rows that were acknowledged stay."""
    from tidemill.keys import revoke_key

    record = revoke_key(_path(file), key_id)
    if as_json:
        emit_json({"id": record.id, "tenant": record.tenant, "revoke_time": record.revoke_time})
    else:
        note(f"key {record.id} of tenant {record.tenant} is revoked")


def _show_new(key: str, file: Path | None, as_json: bool) -> None:
    from tidemill.keys import key_id, list_keys

    record = next(record for record in list_keys(_path(file)) if record.id == key_id(key))
    note("keep this key: only its hash is stored")
    shown = {name: value for name, value in _shown(record, "").items() if name != "last_use_time"}
    emit_json({**shown, "admin": record.admin, "key": key}) if as_json else emit(key)


def _shown(record: "KeyRecord", last_use_time: str) -> dict[str, object]:
    now = datetime.now(UTC)
    if record.revoke_time:
        state = "revoked"
    elif record.expired(now):
        state = "expired"
    else:
        state = "rotating" if len(record.hashes(now)) > 1 else "active"
    names = ("id", "tenant", "create_time", "expire_time", "rotate_time", "previous_expire_time", "revoke_time")
    return {
        **{name: getattr(record, name) for name in names},
        "scopes": list(record.scopes),
        "admin": record.admin,
        "state": state,
        "last_use_time": last_use_time,
    }


def _cell(value: object) -> str:
    return ",".join(cast("list[str]", value)) if isinstance(value, list) else str(value) or "-"


def _scopes(names: list[str]) -> "list[Scope]":
    from tidemill.keys import Scope

    try:
        return [Scope(name) for name in names]
    except ValueError:
        message = f"--scope is one of {', '.join(Scope)}, not {', '.join(names)[:64]}"
        raise TidemillError(Reason.INVALID_ARGUMENT, message) from None


def _duration(text: str, least: float = 1) -> timedelta:
    from tidemill.client.durations import parse_duration

    duration = parse_duration(text)
    if not least <= duration.total_seconds() <= _LONGEST_SECONDS:
        raise TidemillError(Reason.INVALID_ARGUMENT, f"{text!r} is not between {least:g}s and ten years")
    return duration


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

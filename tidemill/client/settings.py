"""Where the gateway is and with which key: arguments, environment, or what a running `tidemill up` wrote."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.errors import Reason, TidemillError

UP_FILE = "up.json"
TLS_SCHEME = "grpcs://"
PLAIN_SCHEME = "grpc://"


@dataclass(frozen=True)
class Connection:
    """Address of a gateway (`host:port`), whether it speaks TLS, the API key, and who may sign for the gateway (PEM;
    None: whom the system trusts)."""

    address: str
    api_key: str
    tls: bool = False
    ca: bytes | None = None


def home_folder() -> Path:
    """`TIDEMILL_HOME`, by default `~/.tidemill`."""
    return Path(os.environ.get("TIDEMILL_HOME") or Path.home() / ".tidemill")


def read_up_file(home: Path) -> dict[str, Any]:
    """What `tidemill up` wrote about its processes below `home`; empty when it is not running."""
    try:
        return json.loads((home / UP_FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise TidemillError(
            Reason.INVALID_ARGUMENT, f"cannot read {home / UP_FILE}: {exc}; restart `tidemill up`"
        ) from None


def resolve(address: str | None = None, api_key: str | None = None, ca: str | Path | None = None) -> Connection:
    """The gateway to talk to. Each value comes from the argument, else the environment, else `up.json`.

    `ca`, or TIDEMILL_CA, names a PEM file and means TLS. Raises INVALID_ARGUMENT without an address or with a file that
    cannot be read, and API_KEY_MISSING without a key.
    """
    address = address or os.environ.get("TIDEMILL_ADDRESS")
    api_key = api_key or os.environ.get("TIDEMILL_API_KEY")
    local = {} if address and api_key else read_up_file(home_folder())
    # A key of the local service is not offered to another one.
    if not api_key and (not address or address == local.get("address")):
        api_key = local.get("api_key")
    address = address or local.get("address")
    if not address:
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            "no Tidemill service is known: start one with `tidemill up`, or set TIDEMILL_ADDRESS and TIDEMILL_API_KEY",
        )
    if not api_key:
        raise TidemillError(
            Reason.API_KEY_MISSING, "no API key: set TIDEMILL_API_KEY (`tidemill keys create` makes one)"
        )
    # The service that `tidemill up` runs here is on loopback and speaks no TLS.
    general = os.environ.get("TIDEMILL_CA") if address != local.get("address") else None
    return connection_to(address, api_key, ca or general)


def connection_to(address: str, api_key: str, ca: str | Path | None = None) -> Connection:
    """The connection that these three describe; INVALID_ARGUMENT for a CA file that cannot be read."""
    tls = address.startswith(TLS_SCHEME) or (ca is not None and not address.startswith(PLAIN_SCHEME))
    content = _read_ca(ca) if tls and ca is not None else None
    return Connection(address.removeprefix(TLS_SCHEME).removeprefix(PLAIN_SCHEME), api_key, tls, content)


def _read_ca(path: str | Path) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as exc:
        raise TidemillError(Reason.INVALID_ARGUMENT, f"cannot read the CA file {path}: {exc.strerror}") from None
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise TidemillError(Reason.INVALID_ARGUMENT, f"{path} holds no PEM certificate; TIDEMILL_CA needs one")
    return content

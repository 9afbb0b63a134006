"""Whether a process is ready: its ready file and `/readyz`, or Dagster's own answers."""

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidemill.up.spec import Check

_SECONDS = 2.0
_SENSOR_DAEMON = '{ instance { daemonHealth { daemonStatus(daemonType: "SENSOR") { healthy } } } }'


def service_check(ready_file: Path, http_address: str) -> Check:
    """Ready once the process wrote its ready file and `/readyz` answers 200."""

    def check() -> str | None:
        if not ready_file.exists():
            return "starting"
        status, body = _request("GET", http_address, "/readyz")
        if status == 200:
            return None
        return _reason(body) if body else "not answering"

    return check


def webserver_check(http_address: str) -> Check:
    """Ready once the Dagster webserver answers."""
    return lambda: None if get_status(http_address, "/server_info") == 200 else "starting"


def daemon_check(http_address: str) -> Check:
    """Ready once the webserver reports the daemon that runs sensors as healthy."""

    def check() -> str | None:
        data = graphql(http_address, _SENSOR_DAEMON)
        if data is None:
            return "the webserver"
        healthy = data["instance"]["daemonHealth"]["daemonStatus"]["healthy"]
        return None if healthy else "its first heartbeat"

    return check


def get_status(http_address: str, path: str) -> int:
    """Status of a GET; 0 when nothing answers."""
    return _request("GET", http_address, path)[0]


def get_text(http_address: str, path: str) -> str:
    """Body of a GET, whatever its status; says so when nothing answers."""
    status, body = _request("GET", http_address, path)
    return body.decode(errors="replace") if status else f"{http_address} does not answer\n"


def graphql(http_address: str, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The `data` of a GraphQL answer; None when the webserver does not give one."""
    body = json.dumps({"query": query, "variables": variables or {}})
    status, answer = _request("POST", http_address, "/graphql", body)
    if status != 200:
        return None
    return json.loads(answer).get("data")


def _request(method: str, http_address: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(http_address, timeout=_SECONDS)
    try:
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _reason(body: bytes) -> str:
    try:
        fields = json.loads(body)
    except ValueError:
        return "not ready"
    details = [f"{key}={value}" for key, value in fields.items() if key != "ready"]
    return " ".join(details)[:120] or "not ready"

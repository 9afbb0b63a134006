"""What operators ask of every process over HTTP: `/metrics`, `/healthz`, `/readyz`."""

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

from prometheus_client import REGISTRY
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


@dataclass(frozen=True)
class Readiness:
    """Whether a process can do its work now, and what it waits for."""

    ready: bool
    details: Mapping[str, object] = field(default_factory=dict[str, object])


class OpsServer:
    """Serves the three paths from a thread of its own; `ready` is called for each `/readyz`."""

    def __init__(self, address: str, ready: Callable[[], Readiness]) -> None:
        host, _, port = address.rpartition(":")
        self._server = _Server((host, int(port)), ready)
        self._thread = threading.Thread(target=self._server.serve_forever, name="ops-http", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """`host:port` that it listens on."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], ready: Callable[[], Readiness]) -> None:
        super().__init__(address, _Handler)
        self.ready = ready


class _Handler(BaseHTTPRequestHandler):
    # A client that sends nothing must not hold its thread for ever.
    timeout = 10

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/healthz":
                self._answer(200, b'{"status": "ok"}\n', "application/json")
            case "/readyz":
                readiness = cast("_Server", self.server).ready()
                body = json.dumps({"ready": readiness.ready, **readiness.details}) + "\n"
                self._answer(200 if readiness.ready else 503, body.encode(), "application/json")
            case "/metrics":
                self._answer(200, generate_latest(REGISTRY), CONTENT_TYPE_LATEST)
            case _:
                self._answer(404, b"paths: /metrics /healthz /readyz\n", "text/plain")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes every few seconds are not worth a log line."""


def write_ready_file(path: Path | None, address: str | None, http_address: str) -> None:
    """Tell the supervisor, atomically, that this process serves, and where."""
    if path is None:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"pid": os.getpid(), "address": address, "http_address": http_address}))
    temporary.replace(path)

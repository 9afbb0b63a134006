"""The archive for a bug report: all that helps is in it, and none of the secrets that were planted."""

import base64
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Run
from tests.client.service import Service
from tidemill.cli.redact import REMOVED, is_secret_name, redacted

PEPPER = "pep/per+with=signs-0123456789"
KEY = "tm_live_abcdef123456_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4"
OTHER_KEY = "tm_live_unknown12345_c29tZW9uZWVsc2Vzc2VjcmV0a2V5"
PASSWORD = "redis-password-987"  # pragma: allowlist secret
PROCESS_SECRET = "only-in-the-process-environment"  # pragma: allowlist secret
SHELL_SECRET = "only-in-the-shell-environment"  # pragma: allowlist secret
SECRETS = (PEPPER, KEY, KEY.rpartition("_")[2], OTHER_KEY, PASSWORD, PROCESS_SECRET, SHELL_SECRET, "hunter2hunter2")


@pytest.fixture
def process() -> Iterator[str]:
    """Something that answers /readyz and /metrics, and says too much."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if self.path == "/readyz" else 200)
            self.end_headers()
            self.wfile.write(f'{{"path": "{self.path}", "authorization": "Bearer {KEY}"}}'.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(alone: Run, tmp_path: Path, process: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of a running set with secrets in every corner."""
    monkeypatch.setenv("TIDEMILL_DAGSTER_API_KEY", SHELL_SECRET)
    monkeypatch.setenv("TIDEMILL_SCHEDULER_LEDGER", f"redis://user:{PASSWORD}@127.0.0.1:1/0")
    monkeypatch.setenv("TIDEMILL_SCHEDULER_CHUNK_ROWS", "77")
    home = tmp_path / "home"
    (home / "logs").mkdir(parents=True)
    (home / "pepper").write_text(PEPPER + "\n")
    (home / "dev-key").write_text(KEY + "\n")
    forms = [base64.b64encode(PEPPER.encode()).decode(), PEPPER.encode().hex(), quote(PEPPER, safe="")]
    lines = [
        f"authorization: Bearer {OTHER_KEY}",
        json.dumps({"event": "connected", "url": f"redis://:{PASSWORD}@host", "pepper": PEPPER}),
        f"the password {PASSWORD} stands alone, and so does {PROCESS_SECRET}",
        'RAY_AUTH_TOKEN="hunter2hunter2"',
        *forms,
        "an engine died",
    ]
    (home / "logs" / "gateway.log").write_text("x" * (2 << 20) + "\n" + "\n".join(lines))
    (home / "logs" / "gateway.log.1").write_bytes(b"\xff\xfe broken bytes\n")
    child = subprocess.Popen(
        ["sleep", "600"], env={**os.environ, "RAY_AUTH_TOKEN": PROCESS_SECRET, "TIDEMILL_GATEWAY_SEGMENT_ROWS": "33"}
    )
    processes = {"gateway": {"pid": child.pid, "address": process, "http_address": process}}
    (home / "up.json").write_text(json.dumps({"address": process, "api_key": KEY, "processes": processes}))
    yield home
    child.kill()
    child.wait()


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name.partition("/")[2]: file.read().decode() for name, file in members.items() if file}


def test_what_helps_is_there_and_no_secret_is(alone: Run, home: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar.gz"
    result = alone("doctor", "--bundle", str(bundle))
    assert "no secrets that are known here" in result.stderr, result.output
    assert bundle.stat().st_mode & 0o777 == 0o600
    files = unpacked(bundle)
    assert {"README.txt", "doctor.json", "versions.json", "machine.json", "settings.json", "up.json"} <= set(files)
    everything = "\n".join(files.values())
    assert "an engine died" in files["logs/gateway.log"]
    assert len(files["logs/gateway.log"]) <= 1 << 20
    assert "broken bytes" in files["logs/gateway.log.1"]
    assert '"/readyz"' in files["processes/gateway-readyz.txt"]
    assert '"/metrics"' in files["processes/gateway-metrics.txt"]
    settings = json.loads(files["settings.json"])
    assert settings["shell"]["TIDEMILL_SCHEDULER_CHUNK_ROWS"] == "77"
    assert settings["shell"]["TIDEMILL_DAGSTER_API_KEY"] == REMOVED
    assert settings["gateway"]["TIDEMILL_GATEWAY_SEGMENT_ROWS"] == "33"
    assert settings["gateway"]["RAY_AUTH_TOKEN"] == REMOVED
    assert json.loads(files["versions.json"])["installed"]["grpcio"]
    assert json.loads(files["machine.json"])["disk_bytes"]
    assert "api_key" not in files["up.json"]
    for secret in SECRETS:
        raw = secret.encode()
        for form in (secret, raw.hex(), quote(secret, safe=""), base64.b64encode(raw).decode().rstrip("=")):
            assert form not in everything, form


def test_the_ledger_of_a_service_is_summed_up(run: Run, service: Service, tmp_path: Path) -> None:
    with service.client() as client:
        client.run(["a"], model=service.model)
    run("doctor", "--bundle", str(tmp_path / "bundle.tar.gz"))
    ledger = json.loads(unpacked(tmp_path / "bundle.tar.gz")["ledger.json"])
    assert ledger["jobs"]["SUCCEEDED"] == 1
    assert ledger["damaged"] == []


def test_nothing_is_overwritten(alone: Run, tmp_path: Path) -> None:
    taken = tmp_path / "bundle.tar.gz"
    taken.write_text("mine")
    result = alone("doctor", "--bundle", str(taken))
    assert result.exit_code == 2
    assert "exists" in result.stderr
    assert taken.read_text() == "mine"
    nowhere = alone("doctor", "--bundle", str(tmp_path / "no" / "folder.tar.gz"))
    assert nowhere.exit_code == 2
    assert "cannot write" in nowhere.stderr


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("TIDEMILL_API_KEY", True),
        ("TIDEMILL_GATEWAY_KEY_PEPPER", True),
        ("RAY_AUTH_TOKEN", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("AWS_ACCESS_KEY_ID", True),
        ("HF_TOKEN", True),
        ("TIDEMILL_GATEWAY_KEYS_FILE", False),
        ("TIDEMILL_INFERENCE_MAX_BATCHED_TOKENS", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("TIDEMILL_HOME", False),
    ],
)
def test_which_settings_are_secret(name: str, secret: bool) -> None:
    assert is_secret_name(name) == secret


@given(st.text(), st.text("abcdefXYZ0123_-+/=", min_size=6, max_size=40), st.text())
def test_a_known_secret_never_stays(before: str, secret: str, after: str) -> None:
    if secret not in REMOVED:
        assert secret not in redacted(f"{before}{secret}{after}{secret}", {secret}).replace(REMOVED, "")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def-123",
        f"key={KEY}",
        "https://bucket/key?X-Amz-Signature=0123abc&x=1",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIabc.def-123\n-----END RSA PRIVATE KEY-----",  # pragma: allowlist secret
        "password: 'abc.def-123'",  # pragma: allowlist secret
        "AKIAABCDEFGHIJKLMNOP",  # pragma: allowlist secret
    ],
)
def test_what_looks_like_a_secret_is_removed(text: str) -> None:
    shown = redacted(text, ())
    assert REMOVED in shown
    assert not any(part in shown for part in ("abc.def-123", KEY, "0123abc", "AKIAABCD"))


def test_what_does_not_stays() -> None:
    line = 'tidemill_rpc_total{method="CreateJob",code="OK"} 3 tokens_per_second=12 job=tenants/dev/jobs/01ARZ3NDEK'
    assert redacted(line, ()) == line

"""The command without a service: help, local commands, and errors that explain themselves."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.client.fakes import FakeGateway
from tidemill.cli.main import app
from tidemill.preflight import Finding

COMMANDS = [command.name for command in app.registered_commands]


def test_help_is_there_for_every_command(alone: Run) -> None:
    top = alone("--help")
    assert top.exit_code == 0
    assert "Exit status: 0 all well" in " ".join(top.stdout.split())
    for name in [*COMMANDS, "keys", "models", "admin"]:
        assert name is not None
        result = alone(name, "--help")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 4
        assert name in top.stdout


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    heavy = "grpc, google.protobuf, rich, pydantic, opentelemetry, pyarrow, ray, torch, dagster"
    code = (
        "import sys; from tidemill.cli import main\n"
        f"print([name for name in {heavy.split(', ')!r} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("jobs",), "start one with `tidemill up`"),
        (("metrics",), "no `tidemill up` runs here"),
        (("submit", "/nonexistent.jsonl", "--model", "m"), "no such file"),
        (("submit", "/", "--model", "m"), "not a regular file"),
        (("results", "x", "--order", "random"), "--order is input or completion"),
        (("doctor", "--engine", "tpu"), "--engine is cpu or gpu"),
        (("up", "--model", "/nonexistent/model"), "is not a folder"),
        (("keys", "create", "--tenant", "Not Good"), "is not a tenant id"),
        (("up", "--engine", "tpu"), "--engine is cpu or gpu"),
        (("up", "--model", "a/x", "--model", "a/x"), "two models are called 'a/x'"),
        (("demo", "--prompts", "/nonexistent.jsonl"), "no such file"),
    ],
)
def test_errors_explain_themselves_in_a_line(alone: Run, arguments: tuple[str, ...], words: str) -> None:
    result = alone(*arguments)
    assert result.exit_code in (2, 3), result.output
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_a_part_that_is_not_installed_is_named(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.parser", None)
    result = alone("metrics", "--address", "127.0.0.1:1")
    assert result.exit_code == 2
    assert "prometheus_client.parser is not installed" in result.stderr
    monkeypatch.setattr("tidemill.up.embedded.find_spec", lambda name: None if name == "ray" else name)
    started = alone("up")
    assert started.exit_code == 3
    assert "not installed: ray; install them with: pip install 'tidemill[cpu]'" in started.stderr


def test_a_gpu_is_looked_for_before_anything_starts(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Finding("gpu", "error", "no NVIDIA driver", "install it")
    monkeypatch.setattr("tidemill.up.embedded.graphics", lambda engine: missing)
    assert "no NVIDIA driver: install it" in alone("up", "--engine", "gpu").stderr


def test_keys(alone: Run, tmp_path: Path) -> None:
    key = alone("keys", "create", "--tenant", "a").stdout.strip()
    assert key.startswith("tm_live_")
    assert json.loads(alone("keys", "create", "--json").stdout)["tenant"] == "dev"
    listed = json.loads(alone("keys", "list", "--json").stdout)
    assert [item["tenant"] for item in listed] == ["a", "dev"]
    text = alone("keys", "list").stdout
    assert listed[0]["id"] in text
    assert key not in text + (tmp_path / "home" / "keys.json").read_text()
    assert (tmp_path / "home" / "keys.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "home" / "pepper").stat().st_mode & 0o777 == 0o600


def test_a_key_is_made_for_less_and_rotated_and_revoked(alone: Run) -> None:
    made = json.loads(
        alone("keys", "create", "--scope", "read", "--scope", "feed", "--expires", "90d", "--json").stdout
    )
    assert (made["scopes"], made["state"]) == (["read", "feed"], "active")
    assert made["expire_time"] > made["create_time"]
    rotated = alone("keys", "rotate", made["id"], "--overlap", "1h")
    assert rotated.stdout.strip() != made["key"]
    assert made["id"] in rotated.stdout
    assert json.loads(alone("keys", "list", "--json").stdout)[0]["state"] == "rotating"
    assert "revoked" in alone("keys", "revoke", made["id"]).stderr
    (listed,) = json.loads(alone("keys", "list", "--json").stdout)
    assert (listed["state"], listed["scopes"], listed["last_use_time"]) == ("revoked", ["read", "feed"], "")
    assert "read,feed" in alone("keys", "list").stdout
    assert "was revoked" in alone("keys", "rotate", made["id"]).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "--scope", "root"), "--scope is one of submit, read, feed, admin"),
        (("create", "--expires", "soon"), "is not a duration"),
        (("create", "--expires", "0s"), "is not between"),
        (("revoke", "a" * 16), "no key"),
    ],
)
def test_bad_arguments_of_keys(alone: Run, arguments: tuple[str, ...], words: str) -> None:
    alone("keys", "create")
    refused = alone("keys", *arguments)
    assert refused.exit_code != 0
    assert words in refused.stderr


def test_a_tiny_model_is_made(alone: Run, tmp_path: Path) -> None:
    made = json.loads(alone("models", "make-tiny", str(tmp_path / "model"), "--json").stdout)
    assert (Path(made["path"]) / "config.json").exists()
    assert len(made["sha256"]) == 64


def test_version(alone: Run) -> None:
    assert "tidemill 0." in alone("version").stdout
    assert json.loads(alone("version", "--json").stdout)["tidemill"].startswith("0.")


def test_doctor_without_a_service(alone: Run) -> None:
    result = alone("doctor")
    assert "none is running here" in result.stdout
    assert "tidemill up" in result.stdout


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    env = {**os.environ, "TIDEMILL_HOME": str(tmp_path)}
    command = f"{sys.executable} -m tidemill.cli.main --help | head -c 1"
    finished = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, check=True)
    assert finished.stderr == ""


def wait_text(process: "subprocess.Popen[str]", path: Path, text: str) -> None:
    end = time.monotonic() + 60
    while text not in path.read_text():
        assert time.monotonic() < end, path.read_text()
        assert process.poll() is None, path.read_text()
        time.sleep(0.02)


@pytest.mark.parametrize("sealed", [True, False])
def test_an_interrupted_submission_says_how_to_go_on(tmp_path: Path, sealed: bool) -> None:
    gateway = FakeGateway(never_finishes=True)
    stderr, rows = tmp_path / "stderr", tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n')
    env = {**os.environ, "TIDEMILL_ADDRESS": gateway.address, "TIDEMILL_API_KEY": "k"}
    try:
        with stderr.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tidemill.cli.main", "submit", str(rows) if sealed else "-", "-m", "m"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=env,
            )
            assert process.stdin is not None
            if not sealed:
                process.stdin.write('{"prompt": "a"}\n')
                process.stdin.flush()
            wait_text(process, stderr, "QUEUED" if sealed else "sending")
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=60)
    finally:
        gateway.stop()
    assert process.returncode == 130, stderr.read_text()
    assert stdout == ""
    assert ("tidemill watch tenants/dev/jobs/" if sealed else "is not sealed") in stderr.read_text()
    assert "Traceback" not in stderr.read_text()


def test_a_client_without_the_scheduler_says_where_ledgers_are_read(
    alone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = alone("ledger", "inspect")
    assert result.exit_code == 2
    assert "the scheduler is not installed here" in result.stderr

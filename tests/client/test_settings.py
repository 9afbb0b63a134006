import json
from pathlib import Path

import pytest

from tidemill.client.settings import Connection, resolve
from tidemill.errors import Reason, TidemillError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    monkeypatch.delenv("TIDEMILL_ADDRESS", raising=False)
    monkeypatch.delenv("TIDEMILL_API_KEY", raising=False)
    monkeypatch.delenv("TIDEMILL_CA", raising=False)
    return tmp_path


def announce(home: Path) -> None:
    (home / "up.json").write_text(json.dumps({"address": "127.0.0.1:7070", "api_key": "local"}))


def test_the_running_service_is_found(home: Path) -> None:
    announce(home)
    assert resolve() == Connection("127.0.0.1:7070", "local")


def test_the_environment_wins_over_the_running_service_and_arguments_over_both(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(home)
    monkeypatch.setenv("TIDEMILL_ADDRESS", "grpcs://example.org:443")
    monkeypatch.setenv("TIDEMILL_API_KEY", "env")
    assert resolve() == Connection("example.org:443", "env", tls=True)
    assert resolve("a:1", "b") == Connection("a:1", "b")


def test_the_local_key_is_not_sent_elsewhere(home: Path) -> None:
    announce(home)
    with pytest.raises(TidemillError) as caught:
        resolve("example.org:7070")
    assert caught.value.reason is Reason.API_KEY_MISSING


def test_no_service_is_known() -> None:
    with pytest.raises(TidemillError, match="tidemill up"):
        resolve()


def test_a_damaged_note(home: Path) -> None:
    (home / "up.json").write_text("{")
    with pytest.raises(TidemillError, match="cannot read"):
        resolve()


PEM = b"-----BEGIN CERTIFICATE-----"


def test_a_ca_means_tls_but_for_the_service_of_this_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "ca.pem").write_bytes(PEM)
    assert resolve("a:1", "b", home / "ca.pem") == Connection("a:1", "b", tls=True, ca=PEM)
    monkeypatch.setenv("TIDEMILL_CA", str(home / "ca.pem"))
    assert resolve("a:1", "b") == Connection("a:1", "b", tls=True, ca=PEM)
    assert resolve("grpcs://a:1", "b") == Connection("a:1", "b", tls=True, ca=PEM)
    assert resolve("grpc://a:1", "b") == Connection("a:1", "b")
    announce(home)
    assert resolve() == Connection("127.0.0.1:7070", "local")


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_ca_file_that_is_none_is_named(home: Path, content: bytes | None) -> None:
    if content is not None:
        (home / "ca.pem").write_bytes(content)
    with pytest.raises(TidemillError, match=r"ca\.pem"):
        resolve("a:1", "b", home / "ca.pem")

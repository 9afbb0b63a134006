"""Models on this machine, listed for the service, without one."""

import hashlib
import json
from pathlib import Path

import pytest

from services.inference.settings import ModelSource, with_listed
from tests.cli.conftest import Run
from tidemill.tiny_model import make_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tiny(tmp_path / "small")
    return tmp_path / "small"


def digest_of(folder: Path) -> str:
    inner = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return hashlib.sha256(f"model.safetensors\0{inner}\n".encode()).hexdigest()


def test_an_added_folder_is_served_from_the_next_start(alone: Run, folder: Path, tmp_path: Path) -> None:
    added = json.loads(alone("models", "add", str(folder), "--json").stdout)
    assert added == {
        "id": "small",
        "path": str(folder),
        "source": str(folder),
        "revision": "",
        "digest": digest_of(folder),
    }
    home = tmp_path / "home"
    assert with_listed((), home) == (ModelSource("small", str(folder)),)
    own = ModelSource("small", "/another")
    assert with_listed((own,), home) == (own,), "what the settings say wins"
    assert "tidemill up" in alone("models", "add", str(folder), "--id", "Org/other").stdout
    assert [source.model for source in with_listed((), home)] == ["Org/other", "small"]
    assert alone("models", "remove", "small").stdout.strip() == "small removed from the list"
    assert [source.model for source in with_listed((), home)] == ["Org/other"]


def test_the_digest_is_that_of_the_service(alone: Run, folder: Path) -> None:
    assert alone("models", "digest", str(folder)).stdout.strip() == digest_of(folder)
    assert json.loads(alone("models", "digest", str(folder), "--json").stdout)["digest"] == digest_of(folder)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", "no readable config.json"),
        ("model.safetensors", "holds no weight files"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_half_a_model_is_refused(alone: Run, folder: Path, missing: str, words: str) -> None:
    (folder / missing).unlink()
    result = alone("models", "add", str(folder))
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "/nonexistent"), "is not a folder"),
        (("add", ".", "--revision", "main"), "--revision is for models of the hub"),
        (("remove", "nothing"), "is not listed"),
        (("digest", "nothing"), "start one with `tidemill up`"),
        (("warm", "nothing"), "start one with `tidemill up`"),
    ],
)
def test_errors_say_what_to_do(alone: Run, arguments: tuple[str, ...], words: str) -> None:
    result = alone("models", *arguments)
    assert (result.exit_code in (2, 3), words in result.stderr) == (True, True), result.stderr


def test_an_id_fits_into_the_settings(alone: Run, folder: Path) -> None:
    result = alone("models", "add", str(folder), "--id", "a=b")
    assert (result.exit_code, "must have no comma" in result.stderr) == (2, True)


def test_a_hub_that_is_not_there_is_explained(alone: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = alone("models", "add", "nobody/nothing", "--revision", "v1")
    assert result.exit_code == 3
    assert "nobody/nothing at revision v1 is neither a folder here nor a model that the hub gives" in result.stderr
    assert "HTTPS_PROXY" in result.stderr
    assert not (tmp_path / "home/models.json").exists()


def test_a_broken_list_is_named(alone: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/models.json").write_text("{")
    result = alone("models", "add", str(folder))
    assert (result.exit_code, "models.json" in result.stderr) == (2, True)

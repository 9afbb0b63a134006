"""What is known of a model before any engine loads it."""

import json
import os
from pathlib import Path

import pytest

from services.inference.engines import Engines
from services.inference.models import Catalog, ModelUnusableError, engine_build, publish_tokenizer
from services.inference.settings import InferenceSettings, ModelSource
from services.inference.store_link import StoreLink
from tidemill.store import ObjectStore, open_store
from tidemill.tiny_model import CHAT_TEMPLATE, make_tiny
from tidemill.v1 import model_service_pb2
from tidemill.weights import WeightDigests, fingerprint


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())


def catalog(tmp_path: Path, source: str, cap: int = 8192) -> Catalog:
    return Catalog([ModelSource("m", source)], WeightDigests(tmp_path / "digests.json"), cap)


def test_a_local_model_is_described_whole(store: ObjectStore, tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny")
    files = catalog(tmp_path, str(tmp_path / "tiny")).fetch("m")
    assert (files.window, files.dtype, files.template) == (2048, "float32", CHAT_TEMPLATE)
    assert len(files.digest) == 64
    publish_tokenizer(store, files)
    assert store.get(files.tokenizer_key) == (tmp_path / "tiny/tokenizer.json").read_bytes()
    assert files.tokenizer_key == f"models/{files.tokenizer_sha256}/tokenizer.json"


def test_the_cap_bounds_the_window(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny")
    assert catalog(tmp_path, str(tmp_path / "tiny"), cap=512).describe("m").window == 512


def test_a_digest_is_taken_once_until_the_file_changes(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny")
    digests, folder = WeightDigests(tmp_path / "digests.json"), tmp_path / "tiny"
    first = digests.digest(folder, fingerprint(folder))
    cached = json.loads((tmp_path / "digests.json").read_text())
    assert len(cached) == 1
    weights = folder / "model.safetensors"
    before = weights.stat()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digests.digest(folder, fingerprint(folder)) == first, "same path, size and time: not read again"
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert digests.digest(folder, fingerprint(folder)) != first


def test_a_model_without_weights_is_unusable(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny")
    (tmp_path / "tiny/model.safetensors").unlink()
    found = catalog(tmp_path, str(tmp_path / "tiny"))
    for look in (found.describe, found.fetch):
        with pytest.raises(ModelUnusableError, match="no weight files"):
            look("m")


@pytest.mark.parametrize("config", ["[]", "{", "[" * 100_000])
def test_a_configuration_that_is_no_object_is_unusable(tmp_path: Path, config: str) -> None:
    make_tiny(tmp_path / "tiny")
    (tmp_path / "tiny/config.json").write_text(config)
    with pytest.raises(ModelUnusableError, match=r"config\.json (cannot be read|holds no JSON object)"):
        catalog(tmp_path, str(tmp_path / "tiny")).describe("m")


def test_files_that_go_while_a_folder_is_read_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(tmp_path)
    listed = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*listed(self, pattern), self / "gone.safetensors"])
    monkeypatch.setattr(Path, "is_file", lambda _self: True)
    assert [name for name, _, _ in fingerprint(tmp_path)] == ["model.safetensors"]


async def test_files_that_cannot_be_read_fail_their_model_alone(store: ObjectStore, tmp_path: Path) -> None:
    for name in ("bad", "good"):
        make_tiny(tmp_path / name)
    (tmp_path / "bad/chat_template.jinja").write_bytes(b"\xff")
    sources = [ModelSource(name, str(tmp_path / name)) for name in ("bad", "good")]
    found = Catalog(sources, WeightDigests(tmp_path / "digests.json"), 8192)
    engines = Engines(InferenceSettings(), found, StoreLink(store), tmp_path)
    await engines.describe()
    bad, good = engines.reports()
    assert (bad.state, good.state) == (model_service_pb2.MODEL_STATE_FAILED, model_service_pb2.MODEL_STATE_COLD)
    assert bad.message.startswith("UnicodeDecodeError: ")


def test_an_unknown_name_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnusableError, match="neither a folder here nor a model"):
        catalog(tmp_path, "nobody/nothing").describe("m")


def test_the_engine_build_names_version_and_device() -> None:
    assert engine_build("cpu").startswith("vllm ")
    assert engine_build("cpu").endswith("(cpu)")

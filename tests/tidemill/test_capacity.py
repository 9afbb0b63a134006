"""What a machine can run: computed from what is found, with the setting to change."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import capacity, profiles
from tidemill.capacity import Card
from tidemill.preflight import GIB, MIB, Finding
from tidemill.profiles import PROFILES

H200 = Card("NVIDIA H200", 141 * GIB)
L4 = Card("NVIDIA L4", 23 * GIB)


def on_cpu(memory: int, environment: Mapping[str, str] | None = None) -> dict[str, Finding]:
    return {item.name: item for item in capacity.findings("cpu", environment or {}, memory)}


def on_gpu(*found: Card, profile: str = "") -> dict[str, Finding]:
    environment = {"TIDEMILL_INFERENCE_PROFILE": profile} if profile else {}
    return {item.name: item for item in capacity.findings("gpu", environment, found=list(found))}


def test_the_largest_model_of_a_cpu_machine() -> None:
    found = on_cpu(16 * GIB)["largest model"]
    weights = (16 * GIB - 1300 * MIB - 512 * MIB - 512 * MIB) / 1.2
    assert f"about {weights / 4e9:.1f} billion parameters in float32" in found.found
    assert f"{weights / 2e9:.1f} billion parameters in bfloat16" in found.found
    assert "lower TIDEMILL_INFERENCE_KV_CACHE_BYTES" in found.found


@given(memory=st.integers(0, 1 << 42), kv=st.integers(0, 1 << 40), reserve=st.integers(0, 1 << 40))
def test_what_loads_fits_beside_all_else(memory: int, kv: int, reserve: int) -> None:
    weights = profiles.weights_room("cpu", memory, kv, reserve)
    assert weights >= 0
    if weights:
        assert weights * profiles.WEIGHT_FACTOR + profiles.RUNTIME_BYTES + kv + reserve <= memory + 1
    assert profiles.weights_room("gpu", memory, kv, reserve) <= memory


def test_settings_change_what_fits() -> None:
    less = on_cpu(8 * GIB, {"TIDEMILL_INFERENCE_KV_CACHE_BYTES": str(4 * GIB)})["largest model"].found
    more = on_cpu(8 * GIB, {"TIDEMILL_INFERENCE_KV_CACHE_BYTES": str(64 * MIB)})["largest model"].found
    assert less != more
    assert on_cpu(8 * GIB, {"TIDEMILL_INFERENCE_PROFILE": "cpu"})["largest model"].found not in (less, more)
    assert on_cpu(2 * GIB)["largest model"].level == "error"


def test_the_fitting_profile_is_named() -> None:
    assert "TIDEMILL_INFERENCE_PROFILE=cpu" in on_cpu(16 * GIB)["profile"].found
    assert "=gpu-141g" in on_gpu(H200)["profile"].found
    assert "=gpu-24g" in on_gpu(L4)["profile"].found
    assert "=gpu-24g" in on_gpu(H200, L4)["profile"].found, "the smallest GPU counts"


@pytest.mark.parametrize(
    ("profile", "level", "words"),
    [
        ("gpu-80g", "ok", "gpu-80g: "),
        ("gpu-141g", "ok", "gpu-141g: "),
        ("cpu", "error", "cpu is for a CPU, this runs on GPU"),
        ("huge", "error", "'huge' is none of cpu-tiny, cpu, gpu-24g"),
    ],
)
def test_a_profile_is_judged(profile: str, level: str, words: str) -> None:
    found = on_gpu(H200, profile=profile)["profile"]
    assert (found.level, words in found.found) == (level, True), found


def test_a_profile_for_a_larger_gpu_is_a_warning() -> None:
    found = on_gpu(L4, profile="gpu-80g")["profile"]
    assert (found.level, "PROFILE=gpu-24g" in found.remedy) == ("warning", True)


def test_no_gpu_is_an_error_with_its_remedy() -> None:
    found = on_gpu()
    assert list(found) == ["capacity"]
    assert "nvidia-smi" in found["capacity"].remedy


def test_configured_models_are_weighed(tmp_path: Path) -> None:
    for name, size in (("small", 1 << 20), ("large", 40 * GIB)):
        (tmp_path / name).mkdir()
        os.truncate(os.open(tmp_path / name / "model.safetensors", os.O_CREAT | os.O_WRONLY), size)
    models = f"small={tmp_path}/small,large={tmp_path}/large,hub/name"
    found = on_cpu(16 * GIB, {"TIDEMILL_INFERENCE_MODELS": models})
    assert found["model small"].level == "ok"
    assert (found["model large"].level, "weights of 40.0 GiB" in found["model large"].found) == ("error", True)
    assert "model hub/name" not in found


def test_cards_are_read_as_the_tool_lists_them(tmp_path: Path) -> None:
    tool = tmp_path / "smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-80GB, 81920'\necho 'NVIDIA L4, 23034'\n")
    tool.chmod(0o755)
    assert capacity.cards((str(tool),)) == [Card("NVIDIA A100-SXM4-80GB", 80 * GIB), Card("NVIDIA L4", 23034 * MIB)]
    assert capacity.cards((str(tmp_path / "absent"),)) == []


def test_cores_respect_the_quota(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert capacity.cores(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert capacity.cores(tmp_path) == len(os.sched_getaffinity(0))


def test_the_table_in_the_documents_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    for profile in PROFILES.values():
        assert f"| `{profile.name}` | {profile.max_num_seqs} | {profile.max_num_batched_tokens} |" in text
        [line] = [line for line in text.splitlines() if line.startswith(f"| `{profile.name}` |")]
        assert line.split("|")[5].strip() == str(profile.slots)

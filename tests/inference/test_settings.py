"""Which models are offered."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.inference.settings import InferenceSettings, ModelSource, parse_models
from tidemill.profiles import PROFILES


@pytest.mark.parametrize(
    "text",
    [
        "tiny=/models/tiny, Qwen/Qwen2.5-0.5B-Instruct",
        '[{"id":"tiny","path":"/models/tiny"},{"id":"Qwen/Qwen2.5-0.5B-Instruct","path":"Qwen/Qwen2.5-0.5B-Instruct"}]',
    ],
)
def test_models_are_pairs_or_json(text: str) -> None:
    hub = "Qwen/Qwen2.5-0.5B-Instruct"
    assert parse_models(text) == (ModelSource("tiny", "/models/tiny"), ModelSource(hub, hub))


@pytest.mark.parametrize("text", ["a=/x,a=/y", "=/x", "[{]"])
def test_bad_models_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        InferenceSettings(models=text)


def test_the_ray_folder_is_short_and_private() -> None:
    folder = InferenceSettings().ray_options().folder
    try:
        assert len(str(folder)) < 40
        assert folder.stat().st_mode & 0o077 == 0
    finally:
        folder.rmdir()


def test_a_gpu_is_left_to_vllm_unless_told_otherwise() -> None:
    cpu, gpu = InferenceSettings(engine="cpu"), InferenceSettings(engine="gpu")
    assert (cpu.kv_bytes, cpu.compiled) == (512 << 20, False)
    assert (gpu.kv_bytes, gpu.compiled) == (0, True)
    told = InferenceSettings(engine="gpu", kv_cache_bytes=1 << 30, compile=False)
    assert (told.kv_bytes, told.compiled) == (1 << 30, False)


def test_a_profile_sets_what_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_INFERENCE_PROFILE", "gpu-80g")
    monkeypatch.setenv("TIDEMILL_INFERENCE_MAX_NUM_SEQS", "300")
    settings = InferenceSettings()
    assert (settings.engine, settings.max_num_seqs, settings.max_num_batched_tokens) == ("gpu", 300, 16384)
    assert (settings.slots, settings.kv_bytes, settings.compiled) == (8, 0, True)


def test_every_profile_is_taken() -> None:
    for name, profile in PROFILES.items():
        settings = InferenceSettings(profile=name)
        assert {key: getattr(settings, key) for key in profile.settings} == dict(profile.settings)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"profile": "gpu"}, "none of cpu-tiny, cpu, gpu-24g, gpu-80g, gpu-141g"),
        ({"profile": "gpu-24g", "engine": "cpu"}, "is for gpu, and engine is cpu"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        InferenceSettings(**values)

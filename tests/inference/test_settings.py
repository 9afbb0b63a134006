"""Which models are offered."""

import pytest
from pydantic import ValidationError

from services.inference.settings import InferenceSettings, ModelSource, parse_models


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

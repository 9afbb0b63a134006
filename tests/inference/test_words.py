"""What an engine says when it does not load."""

import pickle
from pathlib import Path

import pytest

from services.inference.words import EngineLoadError, out_of_memory, own_words, root_cause

VAGUE = "Engine core initialization failed. See root cause above. Failed core proc(s): {}"
# As vLLM 0.32 (cpu) prints them.
LOG = """(EngineCore pid=897) ERROR 11-21 17:24:58 [core.py:1510] EngineCore failed to start.
(EngineCore pid=897) ERROR 11-21 17:24:58 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=897) ERROR 11-21 17:24:58 [core.py:1510]     raise ValueError(
(EngineCore pid=897) ERROR 11-21 17:24:58 [core.py:1510] ValueError: Available memory on node 0 (10.78/13.96 GiB) on \
kv cache allocation is less than requested memory for kv (39.06 GiB). Decrease --kv-cache-memory-bytes
(EngineCore pid=897) INFO 11-21 17:24:58 [core.py:12] goodbye
"""
TRACEBACK = """Traceback (most recent call last):
  File "core.py", line 1, in run
    raise SafetensorError()
safetensors._safetensors_rust.SafetensorError: Error while deserializing header: header too large
"""


def said(tmp_path: Path, text: str, earlier: str = "") -> str:
    path = tmp_path / "worker.err"
    path.write_text(earlier + text)
    return root_cause(RuntimeError(VAGUE), {str(path): len(earlier)})


def test_the_root_cause_is_the_last_error_in_the_log(tmp_path: Path) -> None:
    assert said(tmp_path, LOG).startswith("ValueError: Available memory on node 0 (10.78/13.96 GiB)")
    assert said(tmp_path, TRACEBACK).endswith("SafetensorError: Error while deserializing header: header too large")


def test_what_was_logged_before_the_load_is_not_its_cause(tmp_path: Path) -> None:
    assert said(tmp_path, "no error\n", earlier=LOG) == VAGUE


def test_an_error_that_says_more_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG)
    assert root_cause(ValueError("no such file"), {str(tmp_path / "log"): 0}) == "no such file"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ValueError: Available memory on node 0 (1/2 GiB) on kv cache allocation is less than requested", True),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", True),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory",
            True,
        ),
        ("ValueError: Free memory on device cuda:0 (1/2 GiB) on startup is less than desired GPU memory", True),
        ("Engine core initialization failed. Failed core proc(s): {'EngineCore': -9}", True),
        ("Engine core initialization failed. Failed core proc(s): {'EngineCore': 1}", False),
        ("SafetensorError: Error while deserializing header: header too large", False),
        # Too small a cache, which an even smaller one does not cure.
        ("ValueError: No available memory for the cache blocks.", False),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(words: str, expected: bool) -> None:
    assert out_of_memory(words) == expected


def test_the_words_travel_and_stay_short() -> None:
    failure = pickle.loads(pickle.dumps(EngineLoadError("x" * 2000)))  # noqa: S301
    assert own_words(failure) == "x" * 500
    assert own_words(TimeoutError()) == "the engine did not load in time: raise TIDEMILL_INFERENCE_LOAD_SECONDS"

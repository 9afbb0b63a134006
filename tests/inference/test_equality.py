"""500 rows, greedy and seeded, prompts and chats: bare vLLM, shared and dedicated mode answer row by row alike."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.inference.processes import World, world
from tests.inference.rows import chat, prompt
from tidemill import engine_record
from tidemill.segments import ResultRow
from tidemill.tiny_model import make_tiny
from tidemill.v1 import job_pb2, row_pb2

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

ROWS = 500
SECONDS = 900.0
# Greedy every other row; the others draw with a seed of their own and what else narrows the draw.
DRAWS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.8},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20},
    {"temperature": 1.0, "min_p": 0.05, "presence_penalty": 0.5},
)


def asked() -> list[dict[str, Any]]:
    """The rows as `bare_vllm.py` takes them: all different, some with long common beginnings, lengths mixed."""
    rows: list[dict[str, Any]] = []
    for index in range(ROWS):
        noise = hashlib.sha256(index.to_bytes(2, "big")).hexdigest()[: 8 + index % 40]
        text = f"{'Again and ' * (index % 5)}tell me of number {index * 37} and {noise}"
        row: dict[str, Any] = {"chat" if index % 3 == 0 else "prompt": text, "max_tokens": 8 + index % 12}
        rows.append(row if index % 2 else {**row, **DRAWS[index // 2 % len(DRAWS)], "seed": index})
    return rows


def to_row(index: int, item: dict[str, Any]) -> row_pb2.Row:
    sampling: dict[str, Any] = {"temperature": 0.0, **item}
    kind, text = (chat, sampling.pop("chat")) if "chat" in item else (prompt, sampling.pop("prompt"))
    return kind(f"r{index}", text, **sampling)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def bare(model: Path) -> list[str]:
    """What vLLM answers by itself, in batches unlike ours: prompts and chats apart, sixteen at a time."""
    command = [sys.executable, "tests/inference/bare_vllm.py", str(model)]
    done = subprocess.run(command, input=json.dumps(asked()), capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[World]:
    # One chunk holds all rows: a dedicated engine is loaded for each. Calls of 96 rows meet in the shared one.
    rows = str(ROWS)
    with world(tmp_path_factory.mktemp("home"), chunk_rows=rows, cold_chunk_rows=rows, lease_seconds="30") as found:
        found.inference(f"tiny={model}", call_rows="96", max_num_seqs="48")
        yield found


def answers(stack: World, mode: Any) -> list[ResultRow]:
    name = stack.submit([to_row(index, item) for index, item in enumerate(asked())], mode=mode)
    job = stack.ended(name, SECONDS)
    assert (job.state, job.row_counts.succeeded) == (job_pb2.JOB_STATE_SUCCEEDED, ROWS)
    assert job.equal_answers == job_pb2.EQUAL_ANSWERS_PROMISED
    return stack.results(name)


@pytest.mark.parametrize(
    ("mode", "name"),
    [(job_pb2.EXECUTION_MODE_SHARED, "shared"), (job_pb2.EXECUTION_MODE_DEDICATED, "dedicated")],
    ids=["shared", "dedicated"],
)
def test_answers_equal_those_of_bare_vllm_row_by_row(stack: World, bare: list[str], mode: Any, name: str) -> None:
    results = answers(stack, mode)
    assert [row.row_index for row in results] == list(range(ROWS))
    differing = [index for index, row in enumerate(results) if row.text != bare[index]]
    assert not differing, [(index, results[index].text, bare[index]) for index in differing[:3]]
    assert len(set(bare)) > 0.9 * ROWS, "the model tells its prompts apart too little to show a mix-up"
    (record,) = {row.engine_record for row in results}
    kept = engine_record.get(stack.store, bytes.fromhex(record))
    assert (kept.mode, kept.dtype, kept.equal_answers) == (name, "float32", "promised")

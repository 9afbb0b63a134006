"""The example inputs: `make demo` sends what the script builds, it fits the tiny model, and the client takes it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tidemill.client.jsonl import check_file
from tidemill.client.requests import Endpoint
from tidemill.tiny_codes import WINDOW

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROMPTS = EXAMPLES / "prompts.jsonl"
TEXTS = sorted((EXAMPLES / "texts").glob("*.txt"))
# What the tiny model's chat template adds to a message: two special tokens, the role and line ends, generously.
TEMPLATE_TOKENS = 32


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]


def test_the_file_is_what_the_script_builds() -> None:
    code = "import sys, build_prompts; sys.stdout.write(build_prompts.build())"
    built = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, check=True)
    assert built.stdout == PROMPTS.read_text(encoding="utf-8"), "run: python examples/build_prompts.py"


def test_there_are_200_different_prompts(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 200
    assert len({row["custom_id"] for row in rows}) == 200
    assert len({json.dumps(row["body"]["messages"]) for row in rows}) == 200


def test_each_row_is_bounded_and_names_no_model(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")
        body = row["body"]
        assert set(body) == {"messages", "max_tokens", "temperature"}
        assert body["temperature"] == 0
        assert 16 <= body["max_tokens"] <= 48
        size = sum(len(message["content"].encode()) for message in body["messages"])
        assert size <= 1600, row["custom_id"]
        assert size + TEMPLATE_TOKENS * (1 + len(body["messages"])) + body["max_tokens"] <= WINDOW


def test_the_client_accepts_the_files() -> None:
    summary = check_file(PROMPTS)
    assert (summary.rows, summary.endpoints, summary.models) == (200, {Endpoint.CHAT}, frozenset())
    assert check_file(EXAMPLES / "plain.jsonl").endpoints == {Endpoint.COMPLETION}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_each_text_names_its_source(path: Path) -> None:
    source, *passages = path.read_text(encoding="ascii").split("\n\n")
    assert source.startswith("Source: ")
    assert source.endswith("(public domain)")
    assert passages


def test_the_client_program_is_short_and_compiles() -> None:
    source = (EXAMPLES / "client_ten_lines.py").read_text(encoding="utf-8")
    compile(source, "client_ten_lines.py", "exec")
    assert len([line for line in source.splitlines() if line.strip()]) <= 12

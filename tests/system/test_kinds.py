"""Rows beyond text through the real processes: vectors, several answers with log probabilities, and schemas."""

import json
import math
from collections.abc import Iterator

import pytest

from tests.system.job_client import JobClient
from tests.system.processes import Stack
from tidemill.tiny_model import make_tiny
from tidemill.tiny_pooling import make_tiny_pooling
from tidemill.v1 import job_pb2, row_pb2

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"sea": {"enum": ["calm", "rough"]}, "sail": {"type": "boolean"}},
        "required": ["sea", "sail"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobClient]:
    home = tmp_path_factory.mktemp("home")
    make_tiny(home / "tiny")
    make_tiny_pooling(home / "embedder", "embedder")
    models = {"TIDEMILL_INFERENCE_MODELS": f"tiny={home}/tiny,embedder={home}/embedder"}
    stack = Stack(home, {**models, "TIDEMILL_INFERENCE_KV_CACHE_BYTES": str(128 << 20)})
    try:
        for name in ("scheduler", "gateway", "inference"):
            stack.start(name)
        found = JobClient(stack.address_of("gateway"), stack.key)
        yield found
        found.close()
    finally:
        stack.close()


def answers(client: JobClient, model: str, rows: list[row_pb2.Row], **sampling: object) -> list[row_pb2.RowResult]:
    """The results of a job whose rows must all succeed."""
    defaults = row_pb2.SamplingParams(**sampling) if sampling else None  # pyright: ignore[reportArgumentType]
    job = client.submit(job_pb2.Job(model=model, sampling=defaults), rows)
    assert client.wait(job.name, 600)[-1].state == job_pb2.JOB_STATE_SUCCEEDED
    results = client.results(job.name)
    assert [item.error_message for item in results if item.error_code] == []
    return results


def test_rows_beyond_text_come_back(client: JobClient) -> None:
    texts = [f"Ship number {index}" for index in range(40)]
    embedded = answers(
        client,
        "embedder",
        [row_pb2.Row(custom_id=text, embedding=row_pb2.EmbeddingInput(text=text)) for text in texts],
    )
    assert [item.custom_id for item in embedded] == texts
    assert len({tuple(item.embedding) for item in embedded}) == len(texts)
    assert [math.hypot(*item.embedding) for item in embedded] == pytest.approx([1.0] * len(texts), abs=1e-5)

    rows = [row_pb2.Row(custom_id=text, prompt=text) for text in texts]
    several = answers(client, "tiny", rows, n=2, logprobs=3, temperature=1.0, seed=5, max_tokens=8)
    for item in several:
        (other,) = item.alternatives
        assert item.output_tokens == len(item.logprobs) + other.output_tokens
        assert len(other.logprobs) == other.output_tokens
        assert {len(token.top) for token in [*item.logprobs, *other.logprobs]} == {3}
    assert any(item.text != item.alternatives[0].text for item in several)

    held = answers(client, "tiny", rows, json_schema=SCHEMA, max_tokens=64, temperature=0.0)
    assert all(json.loads(item.text).keys() == {"sea", "sail"} for item in held)
    assert {item.finish_reason for item in held} == {"stop"}

"""A generic gRPC client (`buf curl`, as grpcurl) with nothing of ours but the address and a key."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.processes import Stack
from tidemill.tiny_model import make_tiny

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

BUF = Path(sys.executable).with_name("buf")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    model = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(model)
    stack = Stack(tmp_path_factory.mktemp("home"), {"TIDEMILL_INFERENCE_MODELS": f"tiny={model}"})
    try:
        for name in ("scheduler", "gateway", "inference"):
            stack.start(name)
        yield stack
    finally:
        stack.close()


def curl(stack: Stack, *arguments: str, data: str = "") -> str:
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    command += ["--reflect-header", f"authorization: Bearer {stack.key}"]
    command += ["-H", f"authorization: Bearer {stack.key}", *arguments]
    finished = subprocess.run(command, input=data, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def documents(text: str) -> list[Any]:
    """The JSON documents that a stream printed one after the other."""
    found: list[Any] = []
    decoder, position = json.JSONDecoder(), 0
    while position < len(text.rstrip()):
        document, position = decoder.raw_decode(text, position)
        found.append(document)
        while position < len(text) and text[position].isspace():
            position += 1
    return found


def test_list_submit_watch_and_read_by_reflection(stack: Stack) -> None:
    base = f"http://{stack.address_of('gateway')}"
    services = curl(stack, "--list-services", base).split()
    assert {"tidemill.v1.JobService", "tidemill.v1.ModelService", "grpc.health.v1.Health"} <= set(services)

    messages = [
        {"create": {"job": {"model": "tiny", "completionWindow": "7200s", "sampling": {"maxTokens": 8}}}},
        {"rows": [{"customId": "a", "prompt": "Once upon a time"}]},
        {"rows": [{"customId": "b", "chat": {"messages": [{"role": "user", "content": "Hello"}]}}]},
    ]
    body = "\n".join(json.dumps(message) for message in messages)
    [job] = documents(curl(stack, "-d", "@-", f"{base}/tidemill.v1.JobService/SubmitJob", data=body))
    assert job["state"] == "JOB_STATE_QUEUED"
    assert job["rowCounts"]["total"] == "2"

    request = json.dumps({"name": job["name"]})
    updates = documents(curl(stack, "-d", request, f"{base}/tidemill.v1.JobService/WatchJob"))
    assert updates[-1]["job"]["state"] == "JOB_STATE_SUCCEEDED"

    frames = documents(curl(stack, "-d", request, f"{base}/tidemill.v1.JobService/ReadResults"))
    results = [result for frame in frames for result in frame.get("results", [])]
    assert [result["customId"] for result in results] == ["a", "b"]
    assert all(result["status"] == "ROW_STATUS_SUCCEEDED" and result["text"] for result in results)
    assert frames[-1]["end"] is True

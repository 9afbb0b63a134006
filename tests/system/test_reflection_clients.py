"""Clients that have nothing of ours but an address, a key and the protos; the commands are those of the documents."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.system.processes import ROOT, Stack
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


def test_services_are_listed_by_reflection(stack: Stack) -> None:
    services = curl(stack, "--list-services", f"http://{stack.address_of('gateway')}").split()
    assert {"tidemill.v1.JobService", "tidemill.v1.ModelService", "grpc.health.v1.Health"} <= set(services)


def documented(heading: str) -> str:
    """The commands below a heading of `docs/other-clients.md`."""
    text = (ROOT / "docs" / "other-clients.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return block


def run_documented(stack: Stack, heading: str) -> str:
    """Run them in a shell as a reader would; returns what they print."""
    service = {"TIDEMILL_ADDRESS": stack.address_of("gateway"), "TIDEMILL_API_KEY": stack.key}
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", documented(heading)],
        cwd=ROOT,
        env={**os.environ, **service},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def in_camel(value: Any) -> Any:
    """JSON with keys as `rowIndex`: some grpcurls print those of the protos, `row_index`."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {re.sub("_(.)", lambda found: found[1].upper(), key): in_camel(each) for key, each in fields.items()}
    return [in_camel(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


def needs(*programs: str) -> None:
    """Skip the test where one of these is not installed."""
    if missing := [name for name in programs if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed; docs/other-clients.md says where it comes from")


@pytest.mark.parametrize("program", ["buf curl", "grpcurl"])
def test_submit_watch_and_read_as_documented(stack: Stack, program: str) -> None:
    if program == "grpcurl":
        needs("grpcurl")
    messages = [in_camel(message) for message in documents(run_documented(stack, program))]
    snapshots = [message["job"] for message in messages if "job" in message]
    assert snapshots[-1]["state"] == "JOB_STATE_SUCCEEDED"
    assert snapshots[-1]["rowCounts"]["total"] == "2"
    results = [result for message in messages for result in message.get("results", [])]
    assert [result["customId"] for result in results] == ["a", "b"]
    assert all(result["status"] == "ROW_STATUS_SUCCEEDED" and result["text"] for result in results)
    if program == "buf curl":
        # Its mask leaves out what it does not name.
        assert all(set(result) <= {"rowIndex", "customId", "status", "text"} for result in results)
    assert messages[-1]["end"] is True


@pytest.mark.timeout(600)
def test_generated_go_stubs_submit_and_read(stack: Stack) -> None:
    needs("go", "protoc-gen-go", "protoc-gen-go-grpc")
    if not Path("/usr/share/gocode/src/google.golang.org/grpc").is_dir():
        pytest.skip("Debian's golang-google-grpc-dev is not installed")
    lines = run_documented(stack, "Go").splitlines()
    assert [line.split()[:2] for line in lines] == [[f"row-{n}", "ROW_STATUS_SUCCEEDED"] for n in range(3)]

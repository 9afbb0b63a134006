"""The audit log: every call that changes something leaves one line, and no line tells a secret or a prompt."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.gateway import audit
from services.gateway.audit import AuditLog, Entry
from services.gateway.rules import RULES
from tests.gateway.client import GatewayClient, prompts
from tests.gateway.every_rpc import RPCS, Rpc, reason
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import PEPPER, Stack, wait_for
from tidemill.keys import ALL_SCOPES, create_key, key_id
from tidemill.v1 import job_pb2, job_service_pb2

pb = job_service_pb2


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("audited")
    stack = Stack(home, settings={"TIDEMILL_GATEWAY_AUDIT_FILE": str(home / "audit" / "audit.jsonl")})
    stack.start("scheduler")
    stack.start("gateway")
    yield stack
    stack.close()


def lines(stack: Stack) -> list[dict[str, Any]]:
    path = stack.home / "audit" / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def line_of(stack: Stack, trace: str) -> dict[str, Any]:
    """The one line of a trace."""
    (line,) = wait_for(lambda: [line for line in lines(stack) if line["trace_id"] == trace], 20, "audit line")
    return line


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.method.name)
def test_every_call_that_changes_something_leaves_one_line(audited: Stack, rpc: Rpc, known: bool) -> None:
    trace = secrets.token_hex(16)
    key = create_key(audited.home / "keys.json", PEPPER, "audited", scopes=ALL_SCOPES) if known else "nonsense"
    metadata = [("authorization", f"Bearer {key}"), ("traceparent", f"00-{trace}-{'1' * 16}-01")]
    with grpc.insecure_channel(audited.address_of("gateway")) as channel:
        outcome = reason(channel, rpc, rpc.request(), metadata)
        if not RULES[rpc.name].mutates:
            # The line of a later call is there, so one of this would be too.
            marker = secrets.token_hex(16)
            create = next(rpc for rpc in RPCS if rpc.name.endswith("/CreateJob"))
            reason(channel, create, create.request(), [("traceparent", f"00-{marker}-{'1' * 16}-01")])
            line_of(audited, marker)
            assert [line for line in lines(audited) if line["trace_id"] == trace] == []
            return
    line = line_of(audited, trace)
    assert (line["method"], line["outcome"]) == (rpc.name, outcome)
    assert (line["tenant"], line["key"]) == (("audited", key_id(key)) if known else ("", ""))
    assert line["peer"]
    assert line["time"]


async def test_lines_name_the_resource_and_the_request_but_no_prompt(
    audited: Stack, tokenizer: bytes, tmp_path: Path
) -> None:
    from tests.gateway.conftest import next_model
    from tidemill.store import open_store

    store = open_store((audited.home / "store").as_uri())
    async with (
        GatewayClient(audited.address_of("gateway"), audited.key) as client,
        FakeWorker(audited.address_of("scheduler"), store, next_model(), tokenizer) as worker,
    ):
        job = await client.create(worker.model, request_id="order-66", labels={"purpose": "a secret purpose"})
        await client.fill(job.name, prompts(0, 5, text="a secret prompt"))
        await client.seal(job.name, 5)
        submitted = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 3, text="a secret prompt")])
        for name in (job.name, submitted.name):
            await client.cancel(name)
    by_method = {line["method"].rpartition("/")[2]: line for line in lines(audited) if line["tenant"] == "dev"}
    created = by_method["CreateJob"]
    assert (created["resource"], created["request_id"], created["outcome"]) == (job.name, "order-66", "OK")
    assert by_method["AppendRows"]["resource"] == job.name
    assert by_method["SealJob"]["resource"] == job.name
    assert by_method["SubmitJob"]["resource"] == by_method["CancelJob"]["resource"] == submitted.name
    assert "secret" not in (audited.home / "audit" / "audit.jsonl").read_text()


def test_what_a_caller_wrote_into_a_name_is_not_repeated() -> None:
    entry = Entry("m")
    key = "tm_live_" + "a" * 16 + "_" + "b" * 32
    entry.note(pb.GetJobRequest(name="a prompt by mistake"))
    entry.note(pb.CreateJobRequest(request_id=key))
    entry.note(pb.CreateJobRequest(request_id="two words"))
    entry.note(pb.GetJobRequest(name=f"models/{key}"))
    assert (entry.resource, entry.request_id) == ("", "")


def test_the_file_is_private_and_rotated_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_FILE_BYTES", 2000)
    path = tmp_path / "sub" / "audit.jsonl"
    log = AuditLog(path)
    for number in range(200):
        log.write(Entry("m", request_id=str(number)), "OK")
    log.close()
    files = sorted(path.parent.iterdir())
    assert len(files) == 10
    assert all(file.stat().st_size <= 2000 for file in files)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert json.loads(path.read_text().splitlines()[-1])["request_id"] == "199"

"""No key is ever written down: not at DEBUG level, not where a handler fails, not for keys that are none."""

import asyncio
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.gateway.client import GatewayClient, pb, prompts
from tests.system.processes import PEPPER, ROOT, Stack
from tidemill.errors import TidemillError
from tidemill.keys import create_key, key_id, revoke_key, rotate_key
from tidemill.v1 import job_pb2

KEY = re.compile(r"tm_live_[a-z2-7]")
ABSENT = "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
# Every logger of the process tells all it can, and one method fails in a way that nobody foresaw.
_CHATTY = """
import logging
from services.gateway.jobs import Jobs

basic = logging.basicConfig
logging.basicConfig = lambda **options: basic(**{**options, "level": logging.DEBUG})

async def broken(self, principal, request):
    raise RuntimeError(f"broken for {principal}")

Jobs.list = broken
"""


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, home = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("chatty")
    (folder / "sitecustomize.py").write_text(_CHATTY)
    settings = {
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "PYTHONASYNCIODEBUG": "1",
        "GRPC_VERBOSITY": "DEBUG",
        "TIDEMILL_GATEWAY_AUDIT_FILE": str(home / "audit.jsonl"),
    }
    stack = Stack(home, settings=settings)
    stack.start("scheduler")
    stack.start("gateway")
    yield stack
    stack.close()


def keys(stack: Stack) -> list[str]:
    """A good one, one of less, revoked and replaced ones, and what was never a key."""
    path = stack.home / "keys.json"
    revoked, replaced = (create_key(path, PEPPER, "dev") for _ in range(2))
    revoke_key(path, key_id(revoked) or "")
    rotated = rotate_key(path, PEPPER, key_id(replaced) or "", timedelta())
    expired = create_key(path, PEPPER, "dev", lifetime=timedelta())
    return [
        create_key(path, PEPPER, "dev", admin=True),
        revoked,
        replaced,
        rotated,
        expired,
        stack.key[:-1] + ("a" if stack.key[-1] != "a" else "b"),
        "tm_live_nonsense",
        "tm_live_" + "a" * 5000,
        "tm_live_" + "a" * 16 + "_" + "b" * 32,
    ]


async def attempt(client: GatewayClient, key: str) -> set[str]:
    """Calls of each shape, with the key in places where it does not belong too; what they were refused for."""
    calls = [
        client.list_models(),
        client.unary(client.jobs.ListJobs, pb.ListJobsRequest()),
        client.get(ABSENT),
        client.get(f"tenants/dev/jobs/{key[:64]}"),
        client.create("absent", request_id=key[:64]),
        client.seal(ABSENT, 1),
        client.results(ABSENT),
        client.submit(job_pb2.Job(model=key[:64]), [prompts(0, 2)]),
    ]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, TidemillError) or not isinstance(one, BaseException) for one in ended), ended
    return {one.reason for one in ended if isinstance(one, TidemillError)}


def written(stack: Stack) -> dict[Path, str]:
    """Everything that the processes wrote for people and for collectors."""
    paths = [*stack.home.glob("*.log"), *(stack.home / "telemetry").iterdir(), stack.home / "audit.jsonl"]
    return {path: path.read_text(errors="replace") for path in [*paths, *stack.home.glob("keys.json*")]}


async def test_no_output_holds_a_key(chatty: Stack) -> None:
    reasons: set[str] = set()
    for key in [*keys(chatty), chatty.key]:
        async with GatewayClient(chatty.address_of("gateway"), key) as client:
            reasons |= await attempt(client, key)
    assert {"API_KEY_INVALID", "INTERNAL", "JOB_NOT_FOUND", "INVALID_NAME"} <= reasons
    # The end of the process writes out what waited: spans, and uses of keys.
    for name in ("gateway", "scheduler"):
        assert await asyncio.to_thread(chatty.stop, name) == 0
    outputs = written(chatty)
    log = outputs[chatty.home / "gateway.log"]
    assert '"level": "debug"' in log or "DEBUG" in log
    assert "broken for Principal" in log
    assert len(outputs) >= 7, list(outputs)
    for path, text in outputs.items():
        found = KEY.search(text)
        assert found is None, f"{path}: {text[max(0, found.start() - 200) : found.end() + 20]}"
        assert chatty.key.rpartition("_")[2] not in text, path

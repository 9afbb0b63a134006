"""What keys may do, and how soon they may no more."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from services.gateway.rules import RULES, rule_of
from tests.gateway.client import EOF, GatewayClient, pb, prompts, refused
from tests.gateway.every_rpc import RPCS, Rpc, call, reason
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import PEPPER, Stack
from tidemill.errors import Reason, TidemillError
from tidemill.key_use import read_uses
from tidemill.keys import Scope, create_key, key_id, revoke_key, rotate_key
from tidemill.status import from_rpc_error
from tidemill.v1 import job_pb2

SECONDS = 5.0
"""So soon a key that ended must be felt."""


@pytest.fixture(scope="module")
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(stack.address_of("gateway")) as opened:
        yield opened


def keys_file(stack: Stack) -> Any:
    return stack.home / "keys.json"


def bearer(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")]


def test_every_rpc_is_in_the_table() -> None:
    assert {rpc.name for rpc in RPCS} <= RULES.keys()


def test_an_rpc_outside_the_table_is_the_operator_s() -> None:
    assert rule_of("tidemill.v1.JobService/Unheard").scope is Scope.ADMIN


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.method.name)
def test_every_rpc_needs_its_scope(stack: Stack, channel: grpc.Channel, rpc: Rpc) -> None:
    needed = RULES[rpc.name].scope
    others = create_key(keys_file(stack), PEPPER, "scoped", scopes=set(Scope) - {needed})
    with pytest.raises(TidemillError) as caught:
        call(channel, rpc, rpc.request(), bearer(others))
    assert caught.value.reason is Reason.PERMISSION_DENIED
    assert f"scope {needed}" in caught.value.message
    assert f"tidemill keys create --tenant scoped --scope {needed}" in caught.value.message
    alone = create_key(keys_file(stack), PEPPER, "scoped", scopes=[needed])
    assert reason(channel, rpc, rpc.request(), bearer(alone)) not in ("PERMISSION_DENIED", "API_KEY_INVALID")


class OpenCalls:
    """One call of each kind that stays open, under one key."""

    def __init__(self, client: GatewayClient, job: str, model: str) -> None:
        self.client, self.job = client, job
        options: dict[str, Any] = {"metadata": client.metadata, "timeout": 60}
        self._append = client.jobs.AppendRows(**options)
        self._submit = client.jobs.SubmitJob(**options)
        self._watch = client.jobs.WatchJob(pb.WatchJobRequest(name=job), **options)
        self._results = client.jobs.ReadResults(pb.ReadResultsRequest(name=job, follow=True), **options)
        self._create = pb.CreateJobRequest(job=job_pb2.Job(model=model), request_id=f"held-{job[-26:]}")

    async def start(self) -> None:
        """Return once the gateway has answered those that answer."""
        await self._append.write(pb.AppendRowsRequest(job=self.job, rows=prompts(0, 10)))
        while (await self._append.read()).ack.next_offset < 10:
            pass
        await self._submit.write(pb.SubmitJobRequest(create=self._create))
        await self._submit.write(pb.SubmitJobRequest(rows=prompts(0, 10)))
        await self._watch.read()

    async def ends(self) -> dict[str, TidemillError]:
        """What each of them ends with."""
        kinds: dict[str, Callable[[], Any]] = {
            "append": lambda: _drain(self._append),
            "submit": lambda: _answer(self._submit),
            "watch": lambda: _drain(self._watch),
            "results": lambda: _drain(self._results),
        }
        ended = await asyncio.gather(*(_end(wait()) for wait in kinds.values()))
        return dict(zip(kinds, ended, strict=True))


async def _drain(call: Any) -> None:
    while await call.read() is not EOF:
        pass


async def _answer(call: Any) -> None:
    await call


async def _end(call: Any) -> TidemillError:
    try:
        await call
    except grpc.aio.AioRpcError as exc:
        return from_rpc_error(exc)
    raise AssertionError("it ended without an error")


def revoked(stack: Stack, key: str) -> None:
    revoke_key(keys_file(stack), key_id(key) or "")


def replaced(stack: Stack, key: str) -> None:
    rotate_key(keys_file(stack), PEPPER, key_id(key) or "", timedelta())


@pytest.mark.parametrize("end", [revoked, replaced])
async def test_open_calls_end_with_their_key_and_keep_what_was_acknowledged(
    stack: Stack, client: GatewayClient, worker: FakeWorker, end: Callable[[Stack, str], None]
) -> None:
    key = create_key(keys_file(stack), PEPPER, "dev")
    job = await client.create(worker.model)
    async with GatewayClient(stack.address_of("gateway"), key) as holder:
        calls = OpenCalls(holder, job.name, worker.model)
        await calls.start()
        ending = asyncio.create_task(calls.ends())
        await client.get(job.name)
        assert not ending.done()
        started = time.monotonic()
        end(stack, key)
        errors = await ending
        assert time.monotonic() - started < SECONDS
        assert {kind: error.reason for kind, error in errors.items()} == dict.fromkeys(errors, Reason.API_KEY_INVALID)
        with refused("API_KEY_INVALID"):
            await holder.get(job.name)
    assert (await client.get(job.name)).next_offset == 10
    await client.cancel(job.name)


async def test_a_key_that_expires_ends_its_stream(stack: Stack, client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    key = create_key(keys_file(stack), PEPPER, "dev", lifetime=timedelta(seconds=4))
    async with GatewayClient(stack.address_of("gateway"), key) as holder:
        watching = holder.jobs.WatchJob(pb.WatchJobRequest(name=job.name), metadata=holder.metadata, timeout=60)
        await watching.read()
        started = time.monotonic()
        assert (await _end(_drain(watching))).reason is Reason.API_KEY_INVALID
        assert time.monotonic() - started < 4 + SECONDS
    await client.cancel(job.name)


async def test_both_secrets_work_during_a_rotation(stack: Stack, client: GatewayClient, worker: FakeWorker) -> None:
    old = create_key(keys_file(stack), PEPPER, "dev")
    job = await client.create(worker.model)
    async with GatewayClient(stack.address_of("gateway"), old) as before:
        watching = before.jobs.WatchJob(pb.WatchJobRequest(name=job.name), metadata=before.metadata, timeout=60)
        await watching.read()
        new = rotate_key(keys_file(stack), PEPPER, key_id(old) or "", timedelta(hours=1))
        async with GatewayClient(stack.address_of("gateway"), new) as after:
            await after.get(job.name)
        await before.get(job.name)
        # The watch outlives the gateway's look at the file, which the heartbeats behind it show.
        for _ in range(4):
            assert await watching.read() is not EOF
        watching.cancel()
    await client.cancel(job.name)


async def test_a_lost_scope_ends_a_stream(stack: Stack, client: GatewayClient, worker: FakeWorker) -> None:
    path = keys_file(stack)
    key = create_key(path, PEPPER, "dev", scopes=[Scope.READ])
    job = await client.create(worker.model)
    async with GatewayClient(stack.address_of("gateway"), key) as holder:
        watching = holder.jobs.WatchJob(pb.WatchJobRequest(name=job.name), metadata=holder.metadata, timeout=60)
        await watching.read()
        head, mark, tail = path.read_text().rpartition(key_id(key) or "")
        path.write_text(head + mark + tail.replace('"read"', '"feed"'))
        assert (await _end(_drain(watching))).reason is Reason.PERMISSION_DENIED
    await client.cancel(job.name)


async def test_the_last_use_is_written_when_the_gateway_ends(own_stack: Stack) -> None:
    address = own_stack.address_of("gateway")
    key, unused = (create_key(keys_file(own_stack), PEPPER, "dev") for _ in range(2))
    before = keys_file(own_stack).read_bytes()
    async with GatewayClient(address, key) as client:
        await client.list_models()
    assert await asyncio.to_thread(own_stack.stop, "gateway") == 0
    uses = read_uses(keys_file(own_stack))
    assert uses[key_id(key) or ""] > "2026"
    assert key_id(unused) not in uses
    assert keys_file(own_stack).read_bytes() == before

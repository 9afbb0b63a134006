"""A minute of random, spoiled and damaged calls: no crash, no INTERNAL, bounded memory, and all is well afterwards.

`python -m benchmarks.fuzz` does the same for longer, with a real engine.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from benchmarks.fuzz_calls import Call, FindingError, Line
from benchmarks.fuzzing import Target, fresh_jobs, fuzz, public_services, scheduler_services
from tests.gateway.client import GatewayClient, prompts
from tests.gateway.conftest import next_model, start_stack
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import PEPPER, Stack
from tidemill.client import Client
from tidemill.keys import create_key
from tidemill.store import open_store
from tidemill.v1 import job_pb2

SECONDS = {"gateway": 40, "scheduler": 20}
MOST_GROWTH = 150 << 20
SEED = int(os.environ.get("TIDEMILL_FUZZ_SEED", "0")) or random.randrange(1 << 32)  # noqa: S311 - printed on failure


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return start_stack(tmp_path_factory.mktemp("fuzzed"))


@contextlib.asynccontextmanager
async def offering(worker: FakeWorker) -> AsyncGenerator[FakeWorker]:
    """A worker that goes on saying what it offers."""

    async def repeat() -> None:
        while True:
            await worker.offer(worker.report())
            await asyncio.sleep(1)

    async with worker:
        repeating = asyncio.create_task(repeat())
        try:
            yield worker
        finally:
            repeating.cancel()


def rss(stack: Stack) -> dict[str, int]:
    return {name: psutil.Process(process.pid).memory_info().rss for name, process in stack.running.items()}


@pytest.mark.timeout(600)
async def test_any_call_is_answered_or_refused_by_name(fuzzed: Stack, tokenizer: bytes, tmp_path: Path) -> None:
    store = open_store((fuzzed.home / "store").as_uri())
    model, good_model = next_model(), next_model()
    admin = create_key(fuzzed.home / "keys.json", PEPPER, "dev", admin=True)
    lines = {
        "gateway": Line(fuzzed.address_of("gateway"), f"Bearer {admin}"),
        "scheduler": Line(fuzzed.address_of("scheduler"), ""),
    }
    services = {"gateway": public_services(), "scheduler": scheduler_services()}
    scheduler = fuzzed.address_of("scheduler")
    try:
        async with (
            offering(FakeWorker(scheduler, store, model, tokenizer)),
            offering(FakeWorker(scheduler, store, good_model, tokenizer)) as good,
            GatewayClient(fuzzed.address_of("gateway"), fuzzed.key) as client,
        ):
            with Client(fuzzed.address_of("gateway"), admin) as maker:
                before, findings = rss(fuzzed), list[str]()
                for kind, line in lines.items():
                    target = Target(line, services[kind], lambda: fresh_jobs(maker, model))
                    tally = await asyncio.to_thread(fuzz, target, SECONDS[kind], SEED, tmp_path)
                    findings += tally.findings
                    assert tally.calls > 200, "the fuzzer hardly called"
                    # Without calls that succeed, nothing but the first check was tried.
                    assert line.codes.get("OK", 0) > 10, line.codes
            assert findings == [], f"TIDEMILL_FUZZ_SEED={SEED}"
            assert all(process.poll() is None for process in fuzzed.running.values())
            growth = {name: size - before[name] for name, size in rss(fuzzed).items()}
            assert all(size < MOST_GROWTH for size in growth.values()), growth
            assert "rpc failed" not in fuzzed.log_tail("gateway") + fuzzed.log_tail("scheduler")
            job = await client.submit(job_pb2.Job(model=good_model), [prompts(0, 30)])
            await good.end(job.name)
            assert (await client.get(job.name)).row_counts.succeeded == 30
    finally:
        for line in lines.values():
            line.close()
        await asyncio.to_thread(fuzzed.close)


class FakeChannel:
    """Ends every call with one status."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def unary_unary(self, _method: str) -> object:
        code = self._code

        class FakeError(grpc.RpcError):
            def code(self) -> grpc.StatusCode:
                return code

            def details(self) -> str:
                return "words"

            def trailing_metadata(self) -> Any:
                return ()

        def call(_request: bytes, **_options: object) -> object:
            raise FakeError

        return call

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "is_finding"),
    [
        (grpc.StatusCode.INTERNAL, True),
        (grpc.StatusCode.UNKNOWN, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True),
        (grpc.StatusCode.INVALID_ARGUMENT, True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
    ],
)
def test_the_fuzzer_knows_a_finding(monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode, is_finding: bool) -> None:
    monkeypatch.setattr(grpc, "insecure_channel", lambda *_: FakeChannel(code))
    line = Line("nowhere", "")
    with pytest.raises(FindingError) if is_finding else contextlib.nullcontext():
        line.make(Call("/a/B", False, False, (b"",)))


def test_a_kept_call_can_be_sent_again(tmp_path: Path) -> None:
    call = Call("/a/B", True, False, (b"\xff\x00", b""), (("x-odd", "1"),))
    (tmp_path / "call.json").write_text(call.dump())
    assert Call.load(tmp_path / "call.json") == call

"""A whole job whose rows and results lie on a real S3 server, which goes away on the way."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.gateway.client import prompts
from tests.gateway.conftest import SETTINGS, next_model
from tests.gateway.fake_worker import FakeWorker
from tests.s3_server import OWNER, S3Server, credentials, running_s3
from tests.system.processes import Stack
from tidemill.client import Client
from tidemill.store import ObjectStore, open_store
from tidemill.v1 import row_pb2

ROWS = 2000


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture(scope="module")
def s3_stack(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {**SETTINGS, **s3.environment, "TIDEMILL_GATEWAY_STORE": s3.uri("store")}
    stack = Stack(tmp_path_factory.mktemp("s3"), settings=settings)
    stack.start("scheduler")
    stack.start("gateway")
    yield stack
    stack.close()


@pytest.fixture
def store(s3: S3Server, s3_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in credentials(OWNER).items():
        monkeypatch.setenv(name, value)
    return open_store(s3.uri("store"))


async def test_a_job_lies_on_s3_from_its_rows_to_its_results(
    s3: S3Server, s3_stack: Stack, store: ObjectStore, tokenizer: bytes
) -> None:
    async with FakeWorker(s3_stack.address_of("scheduler"), store, next_model(), tokenizer) as worker:
        rows = prompts(0, ROWS)

        def some_then_an_outage() -> Iterator[row_pb2.Row]:
            for row in rows:
                if row.custom_id == f"r{ROWS // 2}":
                    s3.kill()
                    s3.start()
                yield row

        def submit() -> str:
            with Client(s3_stack.address_of("gateway"), s3_stack.key, patience=120) as client:
                return client.submit(some_then_an_outage(), model=worker.model, deadline="1h").name

        name = await asyncio.to_thread(submit)
        await worker.end(name)

        def read() -> list[row_pb2.RowResult]:
            with Client(s3_stack.address_of("gateway"), s3_stack.key, patience=120) as client:
                job = client.job(name)
                assert job.get().output_manifest_uri.startswith("s3://tidemill/store/jobs/dev/")
                return list(job.results())

        results = await asyncio.to_thread(read)
    assert [result.custom_id for result in results] == [f"r{i}" for i in range(ROWS)]
    assert {result.text for result in results} == {f"answer to r{i}" for i in range(ROWS)}
    folder = f"jobs/dev/{name.rpartition('/')[2]}"
    assert len(list(store.keys(f"{folder}/input"))) >= 2 * ROWS // 300
    assert list(store.keys(f"{folder}/output"))
    assert not (s3_stack.home / "store").exists()

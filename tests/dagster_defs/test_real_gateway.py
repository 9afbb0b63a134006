"""The sensor against the real gateway and scheduler; only the engine is made up."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import dagster as dg
import grpc
import pytest

from dagster_defs.defs.partitions import DATASETS
from dagster_defs.lib.gateway import TidemillGateway
from dagster_defs.lib.submission import Batch, request_id, submit_messages
from dagster_defs.lib.versions import OUTPUTS, PROMPTS, job_id
from tests.dagster_defs.daemon import Daemon
from tests.dagster_defs.stored import job_ids, materializations, observations
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import Stack
from tidemill.store import open_store
from tidemill.tiny_model import make_tiny
from tidemill.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

MODEL = "made-up"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.start("scheduler")
        stack.start("gateway")
        yield stack
    finally:
        stack.close()


@pytest.fixture
async def worker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FakeWorker]:
    folder = tmp_path_factory.mktemp("model")
    make_tiny(folder)
    store = open_store((stack.home / "store").as_uri())
    tokenizer = (folder / "tokenizer.json").read_bytes()
    async with FakeWorker(stack.address_of("scheduler"), store, MODEL, tokenizer) as worker:
        yield worker


@pytest.fixture
def real_gateway(stack: Stack) -> TidemillGateway:
    return TidemillGateway(address=stack.address_of("gateway"), api_key=stack.key)


def _submit(gateway: TidemillGateway, dataset: str, run: str) -> job_pb2.Job:
    batch = Batch(model=MODEL, prompts=["one", "two", "three"], max_tokens=8)
    return gateway.submit_job(submit_messages(batch, dataset, run, request_id(run, "outputs", dataset)))


def _cancel(gateway: TidemillGateway, name: str = "") -> job_pb2.Job:
    """Cancel a job; without a name one that receives no row."""
    metadata = (("authorization", f"Bearer {gateway.api_key}"),)
    with grpc.insecure_channel(gateway.address) as channel:
        stub = job_service_pb2_grpc.JobServiceStub(channel)
        if not name:
            create = job_service_pb2.CreateJobRequest(job=job_pb2.Job(model=MODEL))
            name = stub.CreateJob(create, metadata=metadata, timeout=20).name
        return stub.CancelJob(job_service_pb2.CancelJobRequest(name=name), metadata=metadata, timeout=20)


async def test_jobs_of_the_real_gateway_are_reported_once(
    instance: dg.DagsterInstance, real_gateway: TidemillGateway, worker: FakeWorker
) -> None:
    daemon = Daemon(instance, real_gateway)
    done = _submit(real_gateway, "real", "run-1")
    assert _submit(real_gateway, "real", "run-1").name == done.name
    await worker.run()
    cancelled = _cancel(real_gateway, _submit(real_gateway, "real", "run-2").name)
    _cancel(real_gateway)
    await worker.run()
    await asyncio.to_thread(daemon.settle)
    assert job_ids(materializations(instance)) == {job_id(done): 1}
    assert job_ids(observations(instance, PROMPTS)) == {job_id(done): 1, job_id(cancelled): 1}
    assert job_ids(observations(instance, OUTPUTS)) == {job_id(cancelled): 1}
    assert instance.get_dynamic_partitions(DATASETS) == ["real"]
    [event] = materializations(instance)
    assert event.metadata["rows_succeeded"].value == 3
    assert event.metadata["engine"].value == "fake 1.0"
    samples = event.metadata["sample_results"]
    assert isinstance(samples, dg.TableMetadataValue)
    assert [row.data["answer"] for row in samples.records] == [f"answer to row-{index}" for index in range(3)]
    assert json.loads(daemon.cursor or "")["ledger_uid"]


async def test_dataset_without_a_name_is_named_by_input_and_model(
    instance: dg.DagsterInstance, real_gateway: TidemillGateway, worker: FakeWorker
) -> None:
    job = _submit(real_gateway, "", "run-3")
    await worker.run()
    await asyncio.to_thread(Daemon(instance, real_gateway).settle)
    partitions = {(event.tags or {})["tidemill/job_id"]: event.partition for event in materializations(instance)}
    assert partitions[job_id(job)] == f"{job.input_data_version[:12]}--{MODEL}"

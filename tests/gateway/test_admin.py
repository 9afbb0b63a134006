"""The operator's verbs: an admin key may use them on any tenant's job, no other key may at all."""

from typing import Any

import pytest

from tests.gateway.client import GatewayClient, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tidemill.v1 import admin_service_pb2, job_pb2, model_service_pb2

pb = admin_service_pb2


def all_calls(client: GatewayClient, job: str, model: str) -> list[Any]:
    """Every call that needs an admin key."""
    name = f"models/{model}"
    return [
        client.unary(client.admin.RequeueChunk, pb.RequeueChunkRequest(name=job)),
        client.unary(client.admin.ForceFailJob, pb.ForceFailJobRequest(name=job, message="no")),
        client.unary(client.models.DrainModel, model_service_pb2.DrainModelRequest(name=name)),
        client.unary(client.models.UndrainModel, model_service_pb2.UndrainModelRequest(name=name)),
        client.unary(client.models.PinModel, model_service_pb2.PinModelRequest(name=name)),
        client.unary(client.models.UnpinModel, model_service_pb2.UnpinModelRequest(name=name)),
    ]


async def test_other_keys_are_refused(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    for call in all_calls(client, job.name, worker.model):
        with refused("PERMISSION_DENIED") as caught:
            await call
        assert "tidemill keys create --tenant dev --scope admin" in caught.value.message
    assert (await client.get(job.name)).state == job_pb2.JOB_STATE_RECEIVING
    await client.cancel(job.name)


async def test_an_admin_key_is_a_common_key_for_the_rest(operator: GatewayClient, worker: FakeWorker) -> None:
    job = await operator.create(worker.model)
    assert job.name.startswith("tenants/operator/")
    await operator.cancel(job.name)


async def test_a_job_of_another_tenant_is_failed(
    client: GatewayClient, operator: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 60)])
    first, _ = await worker.chunks(job.name)
    await worker.commit(first, range(10))
    await operator.unary(operator.admin.ForceFailJob, pb.ForceFailJobRequest(name=job.name, message="the disk is full"))
    await worker.end(job.name)
    done = await client.get(job.name)
    assert done.state == job_pb2.JOB_STATE_FAILED
    assert "the disk is full" in done.error.message
    assert (done.row_counts.succeeded, done.row_counts.failed) == (10, 50)


async def test_a_chunk_is_taken_from_its_worker(
    client: GatewayClient, operator: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 60)])
    held = await worker.chunks(job.name)
    with refused("CHUNK_NOT_LEASED"):
        await operator.unary(operator.admin.RequeueChunk, pb.RequeueChunkRequest(name=job.name, row_index=60))
    requeued = await operator.unary(operator.admin.RequeueChunk, pb.RequeueChunkRequest(name=job.name, row_index=7))
    assert requeued.row_counts.leased == 10
    (again,) = await worker.chunks(job.name)
    assert (again.chunk_start, again.chunk_rows) == (0, 50)
    assert again.fence > max(lease.fence for lease in held)
    for lease in (again, held[1]):
        await worker.commit(lease, range(lease.chunk_start, lease.chunk_start + lease.chunk_rows))
    await worker.end(job.name)
    assert (await client.get(job.name)).row_counts.succeeded == 60


@pytest.mark.parametrize(
    ("call", "request_", "reason"),
    [
        ("RequeueChunk", pb.RequeueChunkRequest(name="tenants/dev/jobs/x"), "INVALID_NAME"),
        ("RequeueChunk", pb.RequeueChunkRequest(name="tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"), "JOB_NOT_FOUND"),
        (
            "RequeueChunk",
            pb.RequeueChunkRequest(name="tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV", row_index=-1),
            "INVALID_ARGUMENT",
        ),
        (
            "ForceFailJob",
            pb.ForceFailJobRequest(name="tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"),
            "INVALID_ARGUMENT",
        ),
        (
            "ForceFailJob",
            pb.ForceFailJobRequest(name="tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV", message="x" * 501),
            "INVALID_ARGUMENT",
        ),
    ],
)
async def test_bad_calls(operator: GatewayClient, call: str, request_: Any, reason: str) -> None:
    with refused(reason):
        await operator.unary(getattr(operator.admin, call), request_)


async def test_models_are_drained_and_pinned(
    client: GatewayClient, operator: GatewayClient, worker: FakeWorker
) -> None:
    async def change(verb: str) -> model_service_pb2.Model:
        request = getattr(model_service_pb2, f"{verb}ModelRequest")(name=f"models/{worker.model}")
        return await operator.unary(getattr(operator.models, f"{verb}Model"), request)

    await worker.offer(worker.report(load_seconds=12.5, replicas=2, engine_deaths=1))
    drained = await change("Drain")
    assert (drained.drained, drained.pinned, drained.load_seconds) == (True, False, 12.5)
    assert (drained.replicas, drained.engine_deaths) == (2, 1)
    assert await listed(client, worker.model) == drained
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 3)])
    assert await worker.chunks(job.name) == []
    pinned = await change("Pin")
    assert (pinned.drained, pinned.pinned) == (True, True)
    assert not (await change("Undrain")).drained
    assert not (await change("Unpin")).pinned
    await worker.chunks(job.name)
    assert (await listed(client, worker.model)).chunks_leased == 1
    await client.cancel(job.name)
    with refused("INVALID_NAME"):
        await operator.unary(operator.models.PinModel, model_service_pb2.PinModelRequest(name=worker.model))


async def listed(client: GatewayClient, model: str) -> model_service_pb2.Model:
    (found,) = [item for item in (await client.list_models()).models if item.name == f"models/{model}"]
    return found

"""Who may call, through a real client."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import field_mask_pb2

from services.gateway.auth import Authenticator
from tests.gateway.client import GatewayClient, pb, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import PEPPER, Stack
from tidemill.errors import Reason
from tidemill.keys import create_key
from tidemill.v1 import job_pb2, provenance_pb2

Call = Callable[[], Any]


def all_calls(client: GatewayClient, name: str) -> list[Call]:
    """Every RPC that names a job."""
    stub, options = client.blocking, {"metadata": client.metadata, "timeout": 20}
    update = pb.UpdateJobRequest(
        job=job_pb2.Job(name=name), update_mask=field_mask_pb2.FieldMask(paths=["service_class"])
    )
    return [
        lambda: stub.GetJob(pb.GetJobRequest(name=name), **options),
        lambda: stub.SealJob(pb.SealJobRequest(name=name, row_count=1), **options),
        lambda: stub.CancelJob(pb.CancelJobRequest(name=name), **options),
        lambda: list(stub.AppendRows(iter([pb.AppendRowsRequest(job=name, rows=prompts(0, 1))]), **options)),
        lambda: list(stub.WatchJob(pb.WatchJobRequest(name=name), **options)),
        lambda: list(stub.ReadResults(pb.ReadResultsRequest(name=name), **options)),
        lambda: stub.PauseJob(pb.PauseJobRequest(name=name), **options),
        lambda: stub.ResumeJob(pb.ResumeJobRequest(name=name), **options),
        lambda: stub.UpdateJob(update, **options),
        lambda: stub.DeleteJob(pb.DeleteJobRequest(name=name), **options),
        lambda: stub.RetryFailedRows(pb.RetryFailedRowsRequest(name=name), **options),
        lambda: stub.ReplayRows(provenance_pb2.ReplayRowsRequest(name=name, row_indices=[0]), **options),
        lambda: stub.GetRowProvenance(provenance_pb2.GetRowProvenanceRequest(name=name), **options),
        lambda: stub.EstimateJob(pb.EstimateJobRequest(job=job_pb2.Job(name=name or "x")), **options),
        lambda: stub.ExplainJob(pb.ExplainJobRequest(name=name), **options),
    ]


def parent_calls(client: GatewayClient, parent: str) -> list[Call]:
    """Every RPC that names a tenant."""
    stub, options = client.blocking, {"metadata": client.metadata, "timeout": 20}
    create = pb.CreateJobRequest(parent=parent)
    return [
        lambda: stub.CreateJob(create, **options),
        lambda: stub.SubmitJob(iter([pb.SubmitJobRequest(create=create)]), **options),
        lambda: stub.ListJobs(pb.ListJobsRequest(parent=parent), **options),
        lambda: stub.ListCompletions(pb.ListCompletionsRequest(parent=parent), **options),
        lambda: stub.EstimateJob(pb.EstimateJobRequest(parent=parent), **options),
    ]


async def codes(calls: list[Call]) -> set[grpc.StatusCode]:
    """The statuses that the calls fail with."""

    def code(call: Call) -> grpc.StatusCode:
        try:
            call()
        except grpc.RpcError as exc:
            return exc.code()
        return grpc.StatusCode.OK

    return set(await asyncio.gather(*(asyncio.to_thread(code, call) for call in calls)))


KEYS = [
    (None, "API_KEY_MISSING"),
    ("nonsense", "API_KEY_INVALID"),
    ("tm_live_" + "a" * 16 + "_" + "b" * 32, "API_KEY_INVALID"),
]


@pytest.mark.parametrize(("key", "reason"), KEYS)
async def test_every_call_needs_a_key(stack: Stack, key: str | None, reason: str) -> None:
    async with GatewayClient(stack.address_of("gateway"), key) as client:
        with refused(reason):
            await client.list_models()
        calls = [*all_calls(client, "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"), *parent_calls(client, "")]
        assert await codes(calls) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_a_wrong_secret_and_an_unknown_id_read_the_same(stack: Stack) -> None:
    last = "a" if stack.key[-1] != "a" else "b"
    unknown = "tm_live_" + "a" * 16 + "_" + "b" * 32
    messages: set[str] = set()
    for key in (stack.key[:-1] + last, unknown):
        async with GatewayClient(stack.address_of("gateway"), key) as client:
            with refused("API_KEY_INVALID") as caught:
                await client.list_models()
            messages.add(caught.value.message)
    assert len(messages) == 1


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer a"), ("authorization", "Bearer b")),
    ],
)
async def test_malformed_metadata(client: GatewayClient, metadata: Any) -> None:
    client.metadata = metadata
    with refused("API_KEY_INVALID"):
        await client.list_models()


async def test_a_new_key_works_at_once_and_the_scheme_ignores_case(stack: Stack) -> None:
    key = create_key(stack.home / "keys.json", PEPPER, "newcomer")
    async with GatewayClient(stack.address_of("gateway"), None) as client:
        client.metadata = (("authorization", f"bearer {key}"),)
        await client.list_models()


async def test_a_broken_keys_file_locks_nobody_out(stack: Stack, client: GatewayClient) -> None:
    path = stack.home / "keys.json"
    content = path.read_text()
    try:
        path.write_text(content[:-20])
        await client.list_models()
        path.write_text('{"version": 1, "keys": []}')
        with refused("API_KEY_INVALID"):
            await client.list_models()
    finally:
        path.write_text(content)
    await client.list_models()


def test_a_keys_file_that_cannot_be_read_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, PEPPER, "dev")
    authenticator = Authenticator(path, PEPPER)
    path.unlink()
    path.mkdir()
    assert authenticator.authenticate([("authorization", f"Bearer {key}")]).tenant == "dev"


async def test_bytes_that_are_no_message_are_refused_after_the_key(stack: Stack, client: GatewayClient) -> None:
    method = client.channel.unary_unary("/tidemill.v1.JobService/SealJob")
    for metadata, code in ((client.metadata, grpc.StatusCode.INVALID_ARGUMENT), ((), grpc.StatusCode.UNAUTHENTICATED)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(b"\xff\xff", metadata=metadata, timeout=20)
        assert caught.value.code() is code


async def test_another_tenants_job_does_not_exist(
    client: GatewayClient, stranger: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 3))
    assert await codes(all_calls(stranger, job.name)) == {grpc.StatusCode.NOT_FOUND}
    assert await codes(parent_calls(stranger, "tenants/dev")) == {grpc.StatusCode.NOT_FOUND}
    theirs = await stranger.unary(stranger.jobs.ListJobs, pb.ListJobsRequest())
    assert job.name not in [item.name for item in theirs.jobs]
    # It reads like a job that never was, apart from the name.
    with refused(Reason.JOB_NOT_FOUND) as foreign:
        await stranger.get(job.name)
    missing = "tenants/other/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
    with refused(Reason.JOB_NOT_FOUND) as absent:
        await stranger.get(missing)
    assert foreign.value.message.replace(job.name, "") == absent.value.message.replace(missing, "")
    assert (await client.get(job.name)).next_offset == 3


async def test_names_that_are_no_names(client: GatewayClient) -> None:
    for name in ("", "jobs/x", "tenants/dev/jobs/../x", "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV/x"):
        assert await codes(all_calls(client, name)) == {grpc.StatusCode.INVALID_ARGUMENT}


async def test_keys_are_never_logged(stack: Stack, client: GatewayClient) -> None:
    await client.list_models()
    secret = stack.key.rpartition("_")[2]
    logs = [stack.home / "gateway.log", *(stack.home / "telemetry").glob("gateway.*")]
    assert all(secret not in path.read_text(errors="replace") for path in logs)

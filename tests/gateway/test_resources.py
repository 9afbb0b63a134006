"""Standard parts of the API: filters of lists, etags, a creation that is only tried, one model by name."""

from typing import Any

import pytest
from google.protobuf import duration_pb2

from tests.gateway.client import GatewayClient, pb, prompts, refused
from tests.gateway.conftest import next_model
from tests.gateway.fake_worker import FakeWorker
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2

RECEIVING = job_pb2.JOB_STATE_RECEIVING
HOUR = duration_pb2.Duration(seconds=3600)


async def list_names(client: GatewayClient, page_size: int = 100, **fields: object) -> list[str]:
    """Names over all pages."""
    request = pb.ListJobsRequest(page_size=page_size, **fields)  # pyright: ignore[reportArgumentType]
    found: list[str] = []
    while True:
        page: job_service_pb2.ListJobsResponse = await client.unary(client.jobs.ListJobs, request)
        found += [job.name for job in page.jobs]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_jobs_are_found_by_model_and_labels(client: GatewayClient, worker: FakeWorker) -> None:
    other = next_model()
    await worker.offer(worker.report(), worker.report(other))
    labels = [{"team": "a", "run": "1"}, {"team": "a", "run": "2"}, {"team": "b"}, {}]
    names = [(await client.create(worker.model, labels=item)).name for item in labels]
    elsewhere = (await client.create(other, labels={"team": "a"})).name
    assert await list_names(client, model=worker.model) == names[::-1]
    assert await list_names(client, model=worker.model, page_size=1) == names[::-1]
    assert await list_names(client, labels={"team": "a"}, model=worker.model) == [names[1], names[0]]
    assert await list_names(client, labels={"team": "a", "run": "1"}, model=worker.model) == names[:1]
    assert await list_names(client, labels={"team": "a"}, model=other) == [elsewhere]
    assert await list_names(client, labels={"team": "none"}, model=worker.model) == []
    await client.cancel(names[0])
    found = await list_names(client, labels={"team": "a"}, model=worker.model, states=[RECEIVING])
    assert found == [names[1]]


async def test_a_page_token_binds_its_filter(client: GatewayClient, worker: FakeWorker) -> None:
    for _ in range(2):
        await client.create(worker.model, labels={"a": "1", "b": "2"})
    first = pb.ListJobsRequest(page_size=1, model=worker.model, labels={"a": "1", "b": "2"})
    page = await client.unary(client.jobs.ListJobs, first)
    again = pb.ListJobsRequest(
        page_size=1, model=worker.model, labels={"b": "2", "a": "1"}, page_token=page.next_page_token
    )
    assert len((await client.unary(client.jobs.ListJobs, again)).jobs) == 1
    for change in ({"model": "x"}, {"labels": {"a": "1"}}, {"states": [RECEIVING]}):
        other = pb.ListJobsRequest(page_size=1, page_token=page.next_page_token, model=worker.model)
        other.labels.update({"a": "1", "b": "2"})
        for name in change:
            other.ClearField(name)  # pyright: ignore[reportArgumentType]
        other.MergeFrom(pb.ListJobsRequest(**change))  # pyright: ignore[reportArgumentType]
        with refused("INVALID_PAGE_TOKEN"):
            await client.unary(client.jobs.ListJobs, other)


@pytest.mark.parametrize(
    "fields", [{"model": "x" * 257}, {"labels": {str(n): "" for n in range(17)}}, {"labels": {"k" * 65: "v"}}]
)
async def test_filters_are_bounded(client: GatewayClient, fields: dict[str, Any]) -> None:
    with refused("INVALID_ARGUMENT"):
        await list_names(client, **fields)


async def delete(client: GatewayClient, name: str, etag: str) -> job_service_pb2.DeleteJobResponse:
    return await client.unary(client.jobs.DeleteJob, pb.DeleteJobRequest(name=name, etag=etag))


async def test_a_job_is_deleted_only_as_it_was_seen(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 3)])
    seen = (await client.get(job.name)).etag
    assert seen == (await client.get(job.name)).etag
    await worker.end(job.name)
    with refused("ETAG_MISMATCH") as caught:
        await delete(client, job.name, seen)
    done = await client.get(job.name)
    assert caught.value.metadata["etag"] == done.etag != seen
    with refused("ETAG_MISMATCH"):
        await delete(client, job.name, "nonsense")
    deleted = await delete(client, job.name, done.etag)
    # Repeated, as a client does that lost the answer.
    assert await delete(client, job.name, done.etag) == deleted
    with refused("JOB_NOT_FOUND"):
        await client.get(job.name)
    with refused("JOB_NOT_FOUND"):
        await delete(client, "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV", done.etag)


async def create(client: GatewayClient, model: str, **fields: object) -> job_pb2.Job:
    job = job_pb2.Job(model=model, completion_window=HOUR, labels={"a": "b"})
    request = pb.CreateJobRequest(job=job, **fields)  # pyright: ignore[reportArgumentType]
    return await client.unary(client.jobs.CreateJob, request)


async def test_a_creation_that_is_only_tried_leaves_nothing(client: GatewayClient, worker: FakeWorker) -> None:
    tried = await create(client, worker.model, validate_only=True)
    assert (tried.name, tried.etag, tried.model, dict(tried.labels)) == ("", "", worker.model, {"a": "b"})
    assert (tried.state, tried.service_class) == (RECEIVING, job_pb2.SERVICE_CLASS_STANDARD)
    assert tried.HasField("complete_by_time")
    assert await list_names(client, model=worker.model) == []
    with refused("MODEL_NOT_FOUND"):
        await create(client, "nonesuch", validate_only=True)


async def test_a_deadline_is_judged_before_a_row_is_sent(client: GatewayClient, worker: FakeWorker) -> None:
    unmeasured = await create(client, worker.model, expected_rows=10**6)
    assert unmeasured.sla_state == job_pb2.SLA_STATE_UNSPECIFIED
    worker.busy_seconds = 1.0
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 200)])
    await worker.end(job.name)
    for validate_only in (True, False):
        few = await create(client, worker.model, expected_rows=1, expected_tokens=3, validate_only=validate_only)
        many = await create(client, worker.model, expected_rows=10**7, validate_only=validate_only)
        assert few.sla_state == job_pb2.SLA_STATE_ON_TRACK
        assert many.sla_state == job_pb2.SLA_STATE_AT_RISK
        assert few.eta_p50_time.ToNanoseconds() <= few.eta_p90_time.ToNanoseconds()
        assert few.eta_p90_time.ToNanoseconds() < many.eta_p90_time.ToNanoseconds()
    # Nothing was refused, and nothing is kept of the advice.
    assert (await client.get(many.name)).sla_state == job_pb2.SLA_STATE_UNSPECIFIED
    short = await create(client, worker.model, expected_rows=1000, expected_tokens=1000)
    long = await create(client, worker.model, expected_rows=1000, expected_tokens=10**6)
    assert short.eta_p50_time.ToNanoseconds() < long.eta_p50_time.ToNanoseconds()


@pytest.mark.parametrize(
    "fields",
    [
        {"expected_rows": -1},
        {"expected_rows": 10**10 + 1},
        {"expected_tokens": 5},
        {"expected_rows": 2, "expected_tokens": -1},
        {"expected_rows": 2, "expected_tokens": 2 * 10**6 + 1},
    ],
)
async def test_expectations_are_bounded(client: GatewayClient, worker: FakeWorker, fields: dict[str, int]) -> None:
    with refused("INVALID_ARGUMENT"):
        await create(client, worker.model, **fields)


async def test_a_submission_is_never_only_tried(client: GatewayClient, worker: FakeWorker) -> None:
    for fields in ({"validate_only": True}, {"expected_rows": 1}):
        message = pb.SubmitJobRequest(create=pb.CreateJobRequest(job=job_pb2.Job(model=worker.model), **fields))  # pyright: ignore[reportArgumentType]
        with refused("INVALID_ARGUMENT"):
            await client.submit_messages([message])


async def get_model(client: GatewayClient, name: str) -> model_service_pb2.Model:
    return await client.unary(client.models.GetModel, model_service_pb2.GetModelRequest(name=name))


async def test_one_model_is_read_by_name(client: GatewayClient, worker: FakeWorker) -> None:
    listed = {model.name: model for model in (await client.list_models()).models}
    name = f"models/{worker.model}"
    assert await get_model(client, name) == listed[name]
    with refused("MODEL_NOT_FOUND"):
        await get_model(client, "models/nonesuch")
    with refused("INVALID_NAME"):
        await get_model(client, worker.model)

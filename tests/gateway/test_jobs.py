"""Jobs as resources: create, seal, get, list, cancel; and the models they name."""

import asyncio
import json

import pytest
from google.protobuf import duration_pb2, timestamp_pb2

from tests.gateway.client import GatewayClient, pb, prompts, refused
from tests.gateway.fake_worker import WINDOW, FakeWorker
from tests.system.processes import PEPPER, Stack
from tidemill.keys import create_key
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2, row_pb2

RECEIVING = job_pb2.JOB_STATE_RECEIVING


async def test_a_job_comes_back_as_it_was_asked_for(client: GatewayClient, worker: FakeWorker) -> None:
    window = duration_pb2.Duration(seconds=7200)
    sampling = row_pb2.SamplingParams(temperature=0, max_tokens=16, stop=["\n"])
    job = await client.create(
        worker.model,
        sampling=sampling,
        completion_window=window,
        dataset="mine",
        labels={"team": "a"},
        origin_run_id="run-1",
    )
    assert job.name.startswith("tenants/dev/jobs/")
    assert (job.state, job.execution_mode) == (RECEIVING, job_pb2.EXECUTION_MODE_UNSPECIFIED)
    assert (job.sampling, job.dataset, dict(job.labels)) == (sampling, "mine", {"team": "a"})
    assert job.origin_run_id == "run-1"
    assert not job.HasField("completion_window")
    assert 7190 < job.complete_by_time.ToSeconds() - job.create_time.ToSeconds() < 7210
    assert await client.get(job.name) == job


async def test_the_same_request_id_returns_the_same_job(client: GatewayClient, worker: FakeWorker) -> None:
    window = duration_pb2.Duration(seconds=7200)
    first = await client.create(worker.model, request_id=worker.model, completion_window=window)
    assert await client.create(worker.model, request_id=worker.model, completion_window=window) == first
    with refused("REQUEST_ID_REUSED"):
        await client.create(worker.model, request_id=worker.model)
    assert (await client.create(worker.model)).name != (await client.create(worker.model)).name


async def test_the_clients_trace_is_continued(client: GatewayClient, worker: FakeWorker) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    client.metadata = (*client.metadata, ("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"))
    assert (await client.create(worker.model)).trace_id == trace_id


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"model": "nonesuch"}, "MODEL_NOT_FOUND", "job.model"),
        ({"sampling": row_pb2.SamplingParams(max_tokens=WINDOW)}, "INVALID_ARGUMENT", "job.sampling.max_tokens"),
        ({"sampling": row_pb2.SamplingParams(temperature=-1)}, "INVALID_ARGUMENT", "job.sampling.temperature"),
        ({"complete_by_time": timestamp_pb2.Timestamp(seconds=1)}, "DEADLINE_OUT_OF_RANGE", "job.complete_by_time"),
        ({"state": RECEIVING}, "UNSUPPORTED_PARAMETER", "job.state"),
    ],
)
async def test_bad_jobs(
    client: GatewayClient, worker: FakeWorker, fields: dict[str, object], reason: str, field: str
) -> None:
    with refused(reason) as caught:
        await client.create(**{"model": worker.model, **fields})  # pyright: ignore[reportArgumentType]
    assert [item.field for item in caught.value.violations] == [field]


async def test_the_seal_says_how_rows_reach_an_engine(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 3)])
    assert job.execution_mode == job_pb2.EXECUTION_MODE_SHARED, "its worker has no engine to spare"
    await worker.end(job.name)
    asked = job_pb2.Job(model=worker.model, execution_mode=job_pb2.EXECUTION_MODE_DEDICATED)
    job = await client.submit(asked, [prompts(0, 3)])
    assert job.execution_mode == job_pb2.EXECUTION_MODE_DEDICATED
    await worker.end(job.name)


async def test_seal_fixes_the_rows(client: GatewayClient, worker: FakeWorker, store: ObjectStore) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 450))
    for wrong in (449, 451, 0, -1):
        with refused("ROW_COUNT_MISMATCH") as caught:
            await client.seal(job.name, wrong)
        assert caught.value.metadata["next_offset"] == "450"
    assert (await client.get(job.name)).state == RECEIVING
    sealed = await client.seal(job.name, 450)
    assert sealed.state == job_pb2.JOB_STATE_QUEUED
    assert await client.seal(job.name, 450) == sealed
    with refused("JOB_ALREADY_SEALED"):
        await client.seal(job.name, 451)
    folder, version = f"jobs/dev/{job.name.rpartition('/')[2]}/input", sealed.input_data_version
    manifest = json.loads(store.get(f"{folder}/manifest-{version[:16]}.json"))
    assert (manifest["row_count"], manifest["data_version"]) == (450, sealed.input_data_version)
    assert sum(item["rows"] for item in manifest["segments"]) == 450


async def test_a_wrong_count_leaves_the_append_stream_alone(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, prompts(0, 10))
    await stream.acked(10)
    with refused("ROW_COUNT_MISMATCH"):
        await client.seal(job.name, 11)
    await stream.send(10, prompts(10, 1))
    await stream.acked(11)


async def test_an_empty_job_cannot_be_sealed(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    with refused("JOB_EMPTY"):
        await client.seal(job.name, 0)


async def test_concurrent_seals_agree(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 50))
    sealed = await asyncio.gather(*(client.seal(job.name, 50) for _ in range(5)))
    assert {(item.input_data_version, item.seal_time.ToNanoseconds()) for item in sealed} == {
        (sealed[0].input_data_version, sealed[0].seal_time.ToNanoseconds())
    }


async def test_cancel_is_repeatable_until_the_end(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    cancelled = await client.cancel(job.name)
    assert cancelled.state == job_pb2.JOB_STATE_CANCELLED
    assert (await client.cancel(job.name)).state == job_pb2.JOB_STATE_CANCELLED
    with refused("JOB_NOT_RECEIVING"):
        await client.seal(job.name, 0)
    done = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 1)])
    await worker.run()
    with refused("JOB_TERMINAL"):
        await client.cancel(done.name)


async def test_fields_that_nobody_would_read_are_refused(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    request = pb.SealJobRequest(name=job.name, row_count=1)
    request.MergeFromString(b"\xf8\x07\x01")  # field 127, a varint
    with refused("UNSUPPORTED_PARAMETER"):
        await client.unary(client.jobs.SealJob, request)


async def list_jobs(client: GatewayClient, **fields: object) -> job_service_pb2.ListJobsResponse:
    return await client.unary(client.jobs.ListJobs, pb.ListJobsRequest(**fields))  # pyright: ignore[reportArgumentType]


async def test_pages_join_without_gap_or_repeat(stranger: GatewayClient, worker: FakeWorker) -> None:
    names = [(await stranger.create(worker.model)).name for _ in range(7)]
    await stranger.cancel(names[3])
    pages: list[job_service_pb2.ListJobsResponse] = [await list_jobs(stranger, page_size=3)]
    while pages[-1].next_page_token:
        pages.append(await list_jobs(stranger, page_size=2, page_token=pages[-1].next_page_token))
    found = [job.name for page in pages for job in page.jobs]
    assert found[:7] == names[::-1]
    assert len(found) == len(set(found))
    receiving = await list_jobs(stranger, states=[RECEIVING], page_size=6)
    assert [job.name for job in receiving.jobs] == [name for name in names[::-1] if name != names[3]]


async def test_page_tokens_belong_to_their_query(
    client: GatewayClient, stranger: GatewayClient, worker: FakeWorker
) -> None:
    for _ in range(2):
        await client.create(worker.model)
    token = (await list_jobs(client, page_size=1)).next_page_token
    for caller, fields in (
        (client, {"page_token": token, "states": [RECEIVING]}),
        (stranger, {"page_token": token}),
        (client, {"page_token": token[:-4] + "AAAA"}),
        (client, {"page_token": "nonsense ü"}),
    ):
        with refused("INVALID_PAGE_TOKEN"):
            await list_jobs(caller, **fields)


@pytest.mark.parametrize("fields", [{"page_size": -1}, {"page_size": 1001}, {"states": [0]}, {"states": [99]}])
async def test_bad_list_requests(client: GatewayClient, fields: dict[str, object]) -> None:
    with refused("INVALID_ARGUMENT"):
        await list_jobs(client, **fields)


async def test_models_are_listed_by_page(client: GatewayClient, worker: FakeWorker) -> None:
    others = [worker.report(f"{worker.model}-{letter}", state=model_service_pb2.MODEL_STATE_COLD) for letter in "ab"]
    await worker.offer(worker.report(), *others)
    found: list[model_service_pb2.Model] = []
    page = await client.list_models(page_size=1)
    found.extend(page.models)
    while page.next_page_token:
        page = await client.list_models(page_size=1, page_token=page.next_page_token)
        found.extend(page.models)
    assert [model.name for model in found] == sorted(model.name for model in found)
    mine = {model.name: model for model in found if model.name.startswith(f"models/{worker.model}")}
    assert set(mine) == {f"models/{worker.model}{suffix}" for suffix in ("", "-a", "-b")}
    loaded = mine[f"models/{worker.model}"]
    assert (loaded.state, loaded.max_model_len, loaded.workers) == (model_service_pb2.MODEL_STATE_LOADED, WINDOW, 1)
    with refused("INVALID_PAGE_TOKEN"):
        await client.list_models(page_token="x")


async def test_pages_of_jobs_with_large_schemas_fit_their_messages(stack: Stack, worker: FakeWorker) -> None:
    key = create_key(stack.home / "keys.json", PEPPER, "schemas")
    schema = json.dumps({"enum": ["x" * 60, *range(4000)], "description": "y" * 40_000})
    async with GatewayClient(stack.address_of("gateway"), key) as client:
        sampling = row_pb2.SamplingParams(json_schema=schema)
        names = [(await client.create(worker.model, sampling=sampling)).name for _ in range(75)]
        found, token = list[str](), ""
        while True:
            request = pb.ListJobsRequest(page_size=1000, page_token=token)
            page = await client.unary(client.jobs.ListJobs, request)
            found += [job.name for job in page.jobs]
            assert page.ByteSize() < 5 << 20
            if not (token := page.next_page_token):
                break
        assert sorted(found) == sorted(names)
        assert len(page.jobs) < 75

"""`SubmitJob` through a real client."""

import threading
from collections.abc import Iterator, Sequence

import grpc
import pytest

from tests.gateway.client import GatewayClient, pb, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tests.gateway.waiting import eventually
from tidemill.v1 import job_pb2, row_pb2


async def jobs_of(client: GatewayClient, worker: FakeWorker) -> list[job_pb2.Job]:
    """The jobs for this test's model."""
    page = await client.unary(client.jobs.ListJobs, pb.ListJobsRequest(page_size=1000))
    return [job for job in page.jobs if job.model == worker.model]


def spoiled(index: int, count: int) -> list[row_pb2.Row]:
    rows = prompts(0, count)
    rows[index].sampling.temperature = 3
    return rows


async def test_a_submission_is_one_call(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.submit(
        job_pb2.Job(model=worker.model), [prompts(0, 400), prompts(400, 400), [], prompts(800, 1)]
    )
    assert job.state == job_pb2.JOB_STATE_QUEUED
    assert job.next_offset == job.row_counts.pending == 801
    assert job.dataset == f"{job.input_data_version[:12]}--{worker.model}"
    assert job.trace_id
    await worker.run()
    assert (await client.get(job.name)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_equal_rows_have_equal_versions_however_they_are_sent(client: GatewayClient, worker: FakeWorker) -> None:
    spec = job_pb2.Job(model=worker.model)
    one = await client.submit(spec, [prompts(0, 650)])
    many = await client.submit(spec, [prompts(start, 13) for start in range(0, 650, 13)])
    other = await client.submit(spec, [prompts(0, 649), prompts(649, 1, "other")])
    assert one.input_data_version == many.input_data_version != other.input_data_version


async def test_a_bad_row_is_named_and_nothing_is_left_half_done(client: GatewayClient, worker: FakeWorker) -> None:
    with refused("INVALID_ROWS") as caught:
        await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 5), spoiled(1, 2)])
    assert [item.field for item in caught.value.violations] == ["rows[6].sampling.temperature"]
    assert "PARAMETER_OUT_OF_RANGE" in caught.value.violations[0].description

    async def only_job() -> job_pb2.Job:
        (job,) = await jobs_of(client, worker)
        return job

    ending = {job_pb2.JOB_STATE_CANCELLING, job_pb2.JOB_STATE_CANCELLED}
    await eventually(only_job, lambda job: job.state in ending)


async def test_with_a_request_id_the_job_waits_for_the_corrected_rows(
    client: GatewayClient, worker: FakeWorker
) -> None:
    spec = job_pb2.Job(model=worker.model)
    with refused("INVALID_ROWS"):
        await client.submit(spec, [prompts(0, 5), spoiled(5, 7)[5:]], request_id=worker.model)
    (job,) = await jobs_of(client, worker)
    assert job.state == job_pb2.JOB_STATE_RECEIVING
    done = await client.submit(spec, [prompts(0, 7)], request_id=worker.model)
    assert (done.name, done.next_offset) == (job.name, 7)


async def test_a_broken_submission_is_resumed(client: GatewayClient, worker: FakeWorker) -> None:
    spec = job_pb2.Job(model=worker.model)
    created = await client.create(worker.model, request_id=worker.model)
    await client.fill(created.name, prompts(0, 450))
    done = await client.submit(spec, [prompts(0, 200), prompts(200, 500), prompts(700, 100)], request_id=worker.model)
    assert (done.name, done.next_offset, done.state) == (created.name, 800, job_pb2.JOB_STATE_QUEUED)


async def test_a_resumed_submission_must_send_the_same_rows(client: GatewayClient, worker: FakeWorker) -> None:
    spec = job_pb2.Job(model=worker.model)
    created = await client.create(worker.model, request_id=worker.model)
    await client.fill(created.name, prompts(0, 450))
    with refused("ROW_CONTENT_MISMATCH") as caught:
        await client.submit(spec, [[*prompts(0, 449), *prompts(449, 51, "other")]], request_id=worker.model)
    assert caught.value.metadata["row"] == "449"
    with refused("ROW_COUNT_MISMATCH"):
        await client.submit(spec, [prompts(0, 449)], request_id=worker.model)
    assert (await client.get(created.name)).next_offset == 450
    done = await client.submit(spec, [prompts(0, 450)], request_id=worker.model)
    assert done.next_offset == 450


async def test_a_repeated_submission_returns_the_job(client: GatewayClient, worker: FakeWorker) -> None:
    spec = job_pb2.Job(model=worker.model)
    first = await client.submit(spec, [prompts(0, 320)], request_id=worker.model)
    again = await client.submit(spec, [prompts(0, 100), prompts(100, 220)], request_id=worker.model)
    assert again == first
    await worker.run()
    assert (await client.submit(spec, [prompts(0, 320)], request_id=worker.model)).name == first.name
    with refused("ROW_CONTENT_MISMATCH"):
        await client.submit(spec, [prompts(0, 320, "other")], request_id=worker.model)
    with refused("JOB_NOT_RECEIVING"):
        await client.submit(spec, [prompts(0, 321)], request_id=worker.model)
    with refused("JOB_ALREADY_SEALED"):
        await client.submit(spec, [prompts(0, 319)], request_id=worker.model)
    with refused("REQUEST_ID_REUSED"):
        await client.submit(job_pb2.Job(model=worker.model, dataset="x"), [prompts(0, 1)], request_id=worker.model)


async def test_a_cancelled_job_cannot_be_resumed(client: GatewayClient, worker: FakeWorker) -> None:
    created = await client.create(worker.model, request_id=worker.model)
    await client.cancel(created.name)
    with refused("JOB_NOT_RECEIVING"):
        await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 1)], request_id=worker.model)


async def test_an_empty_submission_is_refused(client: GatewayClient, worker: FakeWorker) -> None:
    with refused("JOB_EMPTY"):
        await client.submit(job_pb2.Job(model=worker.model), [])


async def test_an_unknown_model_is_refused_and_the_others_are_named(client: GatewayClient, worker: FakeWorker) -> None:
    with refused("MODEL_NOT_FOUND") as caught:
        await client.submit(job_pb2.Job(model="nonesuch"), [prompts(0, 1)])
    assert worker.model in caught.value.message
    assert caught.value.violations[0].field == "job.model"


@pytest.mark.parametrize("request_id", ["", "mine"])
async def test_a_client_that_goes_away_seals_nothing(
    client: GatewayClient, worker: FakeWorker, request_id: str
) -> None:
    gone = threading.Event()

    def messages() -> Iterator[pb.SubmitJobRequest]:
        job = job_pb2.Job(model=worker.model)
        yield pb.SubmitJobRequest(create=pb.CreateJobRequest(job=job, request_id=request_id and worker.model))
        yield pb.SubmitJobRequest(rows=prompts(0, 350))
        gone.wait(20)

    call = client.blocking.SubmitJob.future(messages(), metadata=client.metadata, timeout=20)

    async def jobs() -> list[job_pb2.Job]:
        return await jobs_of(client, worker)

    # The first 300 rows, a segment, are durable.
    await eventually(jobs, lambda found: bool(found) and found[0].next_offset >= 300)
    call.cancel()
    gone.set()
    if not request_id:
        cancelled = {job_pb2.JOB_STATE_CANCELLING, job_pb2.JOB_STATE_CANCELLED}
        await eventually(jobs, lambda found: found[0].state in cancelled)
        return
    done = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 400)], request_id=worker.model)
    assert done.next_offset == 400


def abort_of(client: GatewayClient, messages: Sequence[pb.SubmitJobRequest]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        client.blocking.SubmitJob(iter(messages), metadata=client.metadata, timeout=20)
    return caught.value.code()


async def test_messages_out_of_order(client: GatewayClient, worker: FakeWorker) -> None:
    create = pb.SubmitJobRequest(create=pb.CreateJobRequest(job=job_pb2.Job(model=worker.model)))
    rows = pb.SubmitJobRequest(rows=prompts(0, 1))
    for messages in ([], [rows], [create, rows, create]):
        assert abort_of(client, messages) is grpc.StatusCode.INVALID_ARGUMENT
    both = pb.SubmitJobRequest(create=create.create, rows=prompts(0, 2))
    job = client.blocking.SubmitJob(iter([both]), metadata=client.metadata, timeout=20)
    assert job.next_offset == 2
    large = pb.SubmitJobRequest(rows=[row_pb2.Row(custom_id="a", prompt="x" * (4 << 20))])
    assert abort_of(client, [create, large]) is grpc.StatusCode.INVALID_ARGUMENT

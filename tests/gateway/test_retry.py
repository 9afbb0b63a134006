"""`RetryFailedRows`: the rows that failed, and no other, asked again by a job that refers to the first."""

import asyncio
from typing import Any

import pytest
from google.protobuf import duration_pb2

from tests.gateway.client import GatewayClient, pb, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tests.gateway.waiting import eventually
from tidemill.digests import row_digest
from tidemill.encoding import encode_request
from tidemill.segments import input_rows, read_segment
from tidemill.store.local import LocalStore
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2, row_pb2

RECEIVING = job_pb2.JOB_STATE_RECEIVING
CHAT = row_pb2.ChatInput(messages=[row_pb2.ChatMessage(role="user", content="h\u00e9llo")])
SAMPLING = row_pb2.SamplingParams(temperature=0.5, max_tokens=9, stop=["."])


def mixed(count: int) -> list[row_pb2.Row]:
    """Prompts and chats, some with sampling values of their own."""
    rows = prompts(0, count)
    for index in range(0, count, 3):
        rows[index].chat.CopyFrom(CHAT)
    for index in range(0, count, 4):
        rows[index].sampling.CopyFrom(SAMPLING)
    return rows


async def with_failures(
    client: GatewayClient, worker: FakeWorker, rows: list[row_pb2.Row], failed: set[int], **fields: Any
) -> job_pb2.Job:
    """A finished job in which these rows failed."""
    frames = [rows[start : start + 100] for start in range(0, len(rows), 100)]
    job = await client.submit(job_pb2.Job(model=worker.model, **fields), frames)
    left = len(rows)
    while left:
        for lease in reversed(await worker.chunks(job.name)):
            left -= lease.chunk_rows
            indices = set(range(lease.chunk_start, lease.chunk_start + lease.chunk_rows))
            for part, (wanted, fails) in enumerate([(indices - failed, False), (indices & failed, True)]):
                if wanted:
                    await worker.commit(lease, sorted(wanted), part, failed=fails)
    return await ended(client, worker, job.name)


async def ended(client: GatewayClient, worker: FakeWorker, name: str) -> job_pb2.Job:
    await worker.end(name)
    return await client.get(name)


async def retry(client: GatewayClient, name: str, **fields: Any) -> job_pb2.Job:
    return await client.unary(client.jobs.RetryFailedRows, pb.RetryFailedRowsRequest(name=name, **fields))


async def stored(worker: FakeWorker, store: LocalStore, name: str) -> list[Any]:
    """The rows of a job as its chunks hold them."""
    rows: dict[int, Any] = {}
    for lease in await worker.chunks(name):
        for segment in lease.segments:
            rows.update({row.row_index: row for row in input_rows(read_segment(store, segment.key))})
        await worker.commit(lease, range(lease.chunk_start, lease.chunk_start + lease.chunk_rows))
    return [rows[index] for index in sorted(rows)]


async def test_the_failed_rows_are_asked_again_as_they_were(
    client: GatewayClient, worker: FakeWorker, store: LocalStore
) -> None:
    rows, failed = mixed(950), {0, 1, 2, 49, 50, 299, 300, 301, 640, 949}
    fields: dict[str, Any] = {
        "sampling": row_pb2.SamplingParams(temperature=0, max_tokens=7),
        "dataset": "mine",
        "labels": {"team": "a"},
        "service_class": job_pb2.SERVICE_CLASS_FLEX,
        "on_deadline": job_pb2.DEADLINE_POLICY_EXPIRE,
        "escalation": job_pb2.Escalation(raise_class=True),
    }
    first = await with_failures(client, worker, rows, failed, **fields)
    assert (first.state, first.row_counts.failed) == (job_pb2.JOB_STATE_SUCCEEDED, len(failed))
    again = await retry(client, first.name, completion_window=duration_pb2.Duration(seconds=600))
    assert again.name != first.name
    assert (again.retry_of, again.row_counts.total) == (first.name, len(failed))
    for name in ("model", *fields):
        assert getattr(again, name) == getattr(first, name), name
    assert 590 < again.complete_by_time.ToSeconds() - again.create_time.ToSeconds() < 610
    kept = await stored(worker, store, again.name)
    wanted = [rows[index] for index in sorted(failed)]
    assert [row.custom_id for row in kept] == [row.custom_id for row in wanted]
    # Equal requests have equal digests, so this says that content and sampling are the same.
    originals = await digests(store, client, first)
    assert [row.digest for row in kept] == [originals[index] for index in sorted(failed)]
    done = await ended(client, worker, again.name)
    assert (done.row_counts.succeeded, done.row_counts.failed) == (len(failed), 0)
    with refused("NO_FAILED_ROWS"):
        await retry(client, again.name)


async def digests(store: LocalStore, client: GatewayClient, job: job_pb2.Job) -> dict[int, bytes]:
    folder = store.path(f"jobs/dev/{job.name.rpartition('/')[2]}/input")
    tables = [
        read_segment(store, f"jobs/dev/{job.name.rpartition('/')[2]}/input/{path.name}")
        for path in folder.glob("*.parquet")
    ]
    return {row.row_index: row.digest for table in tables for row in input_rows(table)}


async def test_the_same_request_id_is_the_same_job(client: GatewayClient, worker: FakeWorker) -> None:
    first = await with_failures(client, worker, prompts(0, 120), set(range(0, 120, 2)))
    jobs = await asyncio.gather(
        *(retry(client, first.name, request_id=worker.model) for _ in range(2)), return_exceptions=True
    )
    # Two writers of one job: the later one may end the earlier one, which is then told to call again.
    names = {job.name for job in jobs if isinstance(job, job_pb2.Job)}
    again = await retry(client, first.name, request_id=worker.model)
    assert names <= {again.name}
    assert again.row_counts.total == 60
    with refused("REQUEST_ID_REUSED"):
        await retry(client, first.name, request_id=worker.model, completion_window=duration_pb2.Duration(seconds=90))
    assert (await retry(client, first.name)).name != again.name


async def test_a_retry_that_broke_off_goes_on_where_its_rows_ended(client: GatewayClient, worker: FakeWorker) -> None:
    failed = set(range(0, 700, 2))
    first = await with_failures(client, worker, prompts(0, 700), failed)
    call = client.jobs.RetryFailedRows(
        pb.RetryFailedRowsRequest(name=first.name, request_id=worker.model), metadata=client.metadata
    )
    found = await eventually(lambda: retries_of(client, first.name), bool)
    call.cancel()
    again = await retry(client, first.name, request_id=worker.model)
    assert again.name == found[0].name
    assert again.row_counts.total == len(failed)
    done = await ended(client, worker, again.name)
    assert done.row_counts.succeeded == len(failed)


async def retries_of(client: GatewayClient, name: str) -> list[job_pb2.Job]:
    page: job_service_pb2.ListJobsResponse = await client.unary(client.jobs.ListJobs, pb.ListJobsRequest())
    return [job for job in page.jobs if job.retry_of == name]


async def test_a_job_that_has_not_ended(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 3)])
    with refused("JOB_NOT_TERMINAL") as caught:
        await retry(client, job.name)
    assert caught.value.metadata["state"] == "QUEUED"
    await client.cancel(job.name)


async def test_rows_given_up_are_not_failed_rows(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 3)])
    await client.cancel(job.name)
    done = await ended(client, worker, job.name)
    assert done.state == job_pb2.JOB_STATE_CANCELLED
    with refused("NO_FAILED_ROWS") as caught:
        await retry(client, job.name)
    assert "3 were given up" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"completion_window": duration_pb2.Duration(seconds=59)}, "DEADLINE_OUT_OF_RANGE", "completion_window"),
        ({"request_id": "x" * 129}, "INVALID_ARGUMENT", "request_id"),
    ],
)
async def test_bad_retries(
    client: GatewayClient, worker: FakeWorker, fields: dict[str, Any], reason: str, field: str
) -> None:
    job = await client.create(worker.model)
    with refused(reason) as caught:
        await retry(client, job.name, **fields)
    assert [item.field for item in caught.value.violations] == [field]
    await client.cancel(job.name)


async def test_a_refused_retry_leaves_no_job_behind(
    client: GatewayClient, worker: FakeWorker, store: LocalStore
) -> None:
    first = await with_failures(client, worker, prompts(0, 20), {3})
    folder = store.path(f"jobs/dev/{first.name.rpartition('/')[2]}/input")
    for path in folder.glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with refused("DATA_CORRUPT"):
        await retry(client, first.name)
    left = await eventually(lambda: retries_of(client, first.name), lambda jobs: jobs[0].state != RECEIVING)
    assert [job.state for job in left] == [job_pb2.JOB_STATE_CANCELLED]


async def test_rows_of_every_kind_are_asked_again_as_they_were(
    client: GatewayClient, worker: FakeWorker, store: LocalStore
) -> None:
    worker.tasks = [task for task in model_service_pb2.Task.values() if task]
    await worker.offer(worker.report())
    rows = [
        row_pb2.Row(custom_id="e", embedding=row_pb2.EmbeddingInput(text="x", dimensions=8)),
        row_pb2.Row(custom_id="c", classification=row_pb2.ClassificationInput(text="x")),
        row_pb2.Row(custom_id="s", score=row_pb2.ScoreInput(query="q", document="d")),
        row_pb2.Row(
            custom_id="p",
            prompt="x",
            sampling=row_pb2.SamplingParams(n=2, logprobs=0, max_tokens=4, json_schema="{}", ignore_eos=False),
        ),
    ]
    first = await with_failures(client, worker, rows, {0, 1, 2, 3})
    again = await retry(client, first.name)
    found = await stored(worker, store, again.name)
    assert [(row.custom_id, row.task) for row in found] == [(row.custom_id, row.WhichOneof("input")) for row in rows]
    assert [row.digest for row in found] == [row_digest(row.custom_id, encode_request(row)) for row in rows]

"""`ReadResults` and `ListCompletions` through a real client, over parts that a worker without an engine wrote."""

import asyncio
import random
from typing import Any

import pytest

from tests.gateway.client import GatewayClient, pb, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tidemill.internal.v1 import scheduler_service_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2, row_pb2

INPUT, COMPLETION = pb.RESULT_ORDER_INPUT, pb.RESULT_ORDER_COMPLETION
Frames = list[job_service_pb2.ReadResultsResponse]


def rows_of(frames: Frames) -> list[row_pb2.RowResult]:
    """The results, after checking that frames join and only the last one ends."""
    offset = frames[0].offset if frames else 0
    for frame in frames:
        assert frame.offset == offset
        offset += len(frame.results)
        assert frame.next_offset == offset
    assert [frame.end for frame in frames[:-1]] == [False] * (len(frames) - 1)
    return [row for frame in frames for row in frame.results]


async def submitted(client: GatewayClient, worker: FakeWorker, rows: int) -> job_pb2.Job:
    return await client.submit(job_pb2.Job(model=worker.model), [prompts(0, rows)])


async def leased(worker: FakeWorker) -> list[scheduler_service_pb2.Lease]:
    return sorted(await worker.lease(), key=lambda lease: lease.chunk_start)


async def commit_in_pieces(worker: FakeWorker, rows: int, seed: int) -> list[int]:
    """Answer a job in parts of scattered rows, chunks interleaved; returns the rows in order of commit."""
    order: list[int] = []
    shuffled = random.Random(seed)  # noqa: S311 - a test's own order
    pieces: list[tuple[Any, int, list[int]]] = []
    for lease in await leased(worker):
        indices = list(range(lease.chunk_start, lease.chunk_start + lease.chunk_rows))
        shuffled.shuffle(indices)
        cuts = sorted(shuffled.sample(range(1, len(indices)), min(3, len(indices) - 1)))
        ends = [0, *cuts, len(indices)]
        pieces.extend((lease, part, indices[ends[part] : ends[part + 1]]) for part in range(len(ends) - 1))
    shuffled.shuffle(pieces)
    for lease, part, indices in pieces:
        await worker.commit(lease, indices, part)
        order.extend(indices)
    assert len(order) == rows
    return order


@pytest.mark.parametrize("seed", range(3))
async def test_both_orders_are_complete_and_resumable_at_every_offset(
    client: GatewayClient, worker: FakeWorker, seed: int
) -> None:
    job = await submitted(client, worker, 170)
    order = await commit_in_pieces(worker, 170, seed)
    await worker.run()
    for kind, expected in ((INPUT, list(range(170))), (COMPLETION, order)):
        frames = await client.results(job.name, order=kind)
        assert frames[-1].end
        assert [row.row_index for row in rows_of(frames)] == expected
        for start in (1, 49, 50, 51, 169, 170):
            rest = await client.results(job.name, order=kind, start_offset=start)
            assert rest[0].offset == start
            assert rest[-1].end
            assert [row.row_index for row in rows_of(rest)] == expected[start:]
        with refused("OFFSET_OUT_OF_RANGE"):
            await client.results(job.name, order=kind, start_offset=171)


async def test_results_of_a_chunk_that_was_halved_are_all_there_in_row_order(
    client: GatewayClient, worker: FakeWorker
) -> None:
    job = await submitted(client, worker, 40)
    (lease,) = await leased(worker)
    await worker.commit(lease, [3, 30])
    await worker.die(lease)
    (alone,) = await worker.chunks(job.name) or await worker.chunks(job.name)
    await worker.commit(alone, [4, 39])
    await worker.die(alone)
    await worker.end(job.name)
    frames = await client.results(job.name)
    assert [row.row_index for row in rows_of(frames)] == list(range(40))
    assert frames[-1].end


async def test_a_result_carries_everything(client: GatewayClient, worker: FakeWorker) -> None:
    job = await submitted(client, worker, 2)
    (lease,) = await leased(worker)
    await worker.commit(lease, [0])
    await worker.commit(lease, [1], part=1, failed=True)
    await worker.run()
    good, bad = rows_of(await client.results(job.name))
    assert (good.custom_id, good.text, good.finish_reason) == ("r0", "answer to r0", "stop")
    assert (good.status, good.prompt_tokens, good.output_tokens) == (row_pb2.ROW_STATUS_SUCCEEDED, 3, 4)
    assert (good.attempt, good.model_digest, good.engine_build) == (1, "ab" * 32, "fake 1.0")
    assert (good.engine_record, good.queue_seconds, good.HasField("prefill_seconds")) == ("cd" * 32, 0.5, False)
    assert (bad.status, bad.text, bad.error_code) == (row_pb2.ROW_STATUS_FAILED, "", "ENGINE_REFUSED")
    done = await client.get(job.name)
    assert (done.row_counts.succeeded, done.row_counts.failed) == (1, 1)
    assert (done.usage.prompt_tokens, done.usage.output_tokens) == (6, 4)
    assert done.output_manifest_uri.startswith("file:///")
    assert len(done.output_data_version) == 64


async def test_what_is_there_can_be_read_while_the_job_runs(client: GatewayClient, worker: FakeWorker) -> None:
    job = await submitted(client, worker, 120)
    first, second, third = await leased(worker)
    assert await client.results(job.name) == []
    await worker.commit(second, range(50, 100))
    await worker.commit(first, range(20))
    await worker.commit(first, range(30, 50), part=1)
    by_input = await client.results(job.name)
    assert [row.row_index for row in rows_of(by_input)] == list(range(20))
    assert not by_input[-1].end
    by_completion = await client.results(job.name, order=COMPLETION)
    assert [row.row_index for row in rows_of(by_completion)] == [*range(50, 100), *range(20), *range(30, 50)]
    await worker.commit(first, range(20, 30), part=2)
    more = await client.results(job.name, start_offset=by_input[-1].next_offset)
    assert [row.row_index for row in rows_of(more)] == list(range(20, 100))
    await worker.commit(third, range(100, 120))
    await worker.run()
    assert (await client.results(job.name, start_offset=120))[-1].end


@pytest.mark.parametrize("order", [INPUT, COMPLETION])
async def test_following_waits_for_every_result(client: GatewayClient, worker: FakeWorker, order: int) -> None:
    job = await submitted(client, worker, 120)
    reading = asyncio.create_task(client.results(job.name, order=order, follow=True))
    committed = await commit_in_pieces(worker, 120, 1)
    await worker.run()
    frames = await reading
    assert frames[-1].end
    assert [row.row_index for row in rows_of(frames)] == (list(range(120)) if order == INPUT else committed)


async def test_a_cancelled_job_has_a_result_for_every_row(client: GatewayClient, worker: FakeWorker) -> None:
    job = await submitted(client, worker, 130)
    leases = await leased(worker)
    await worker.commit(leases[1], range(60, 75))
    await client.cancel(job.name)
    await worker.end(job.name)
    rows = rows_of(await client.results(job.name, follow=True))
    assert [row.row_index for row in rows] == list(range(130))
    kept = {row.row_index for row in rows if row.status == row_pb2.ROW_STATUS_SUCCEEDED}
    assert kept == set(range(60, 75))
    assert {row.error_code for row in rows if row.row_index not in kept} == {"JOB_CANCELLED"}


async def test_a_job_cancelled_before_its_seal_has_a_result_for_every_row(
    client: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 70))
    await client.cancel(job.name)
    await worker.end(job.name)
    frames = await client.results(job.name, order=COMPLETION)
    assert sorted(row.row_index for row in rows_of(frames)) == list(range(70))
    assert (await client.results(job.name))[-1].next_offset == 70


async def test_large_results_come_in_frames_of_about_a_mebibyte(client: GatewayClient, worker: FakeWorker) -> None:
    job = await submitted(client, worker, 50)
    (lease,) = await leased(worker)
    await worker.commit(lease, range(50), text="x" * 100_000)
    await worker.run()
    for order in (INPUT, COMPLETION):
        frames = await client.results(job.name, order=order)
        assert len(rows_of(frames)) == 50
        assert len(frames) >= 5
        assert all(frame.ByteSize() < 1_200_000 for frame in frames)


async def test_a_job_without_rows_ends_at_once(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    assert await client.results(job.name) == []
    await client.cancel(job.name)
    for follow in (False, True):
        (frame,) = await client.results(job.name, follow=follow)
        assert frame.end


@pytest.mark.parametrize("fields", [{"start_offset": -1}, {"order": 7}])
async def test_bad_read_requests(client: GatewayClient, worker: FakeWorker, fields: dict[str, Any]) -> None:
    job = await client.create(worker.model)
    with refused("INVALID_ARGUMENT"):
        await client.results(job.name, **fields)


async def test_a_lost_result_file_is_reported_and_not_skipped(
    client: GatewayClient, worker: FakeWorker, store: ObjectStore
) -> None:
    job = await submitted(client, worker, 50)
    (lease,) = await leased(worker)
    await worker.commit(lease, range(50))
    await worker.run()
    folder = f"jobs/dev/{job.name.rpartition('/')[2]}/output"
    for key in list(store.keys(folder)):
        store.delete(key)
    for order in (INPUT, COMPLETION):
        with refused("DATA_CORRUPT"):
            await client.results(job.name, order=order)
    # The feed goes on without the sample.
    entries = await completions(client, limit=500)
    assert any(entry.job.name == job.name and not entry.sample_results for entry in entries.completions)


async def completions(client: GatewayClient, **fields: Any) -> job_service_pb2.ListCompletionsResponse:
    return await client.unary(client.jobs.ListCompletions, pb.ListCompletionsRequest(**fields))


async def test_the_feed_reports_accepted_and_finished_jobs_in_order(
    client: GatewayClient, stranger: GatewayClient, worker: FakeWorker
) -> None:
    before = await completions(client, limit=500)
    job = await client.submit(job_pb2.Job(model=worker.model, dataset="mine"), [prompts(0, 60)])
    await worker.run()
    accepted, finished = (await completions(client, after_sequence=before.next_sequence)).completions
    assert (accepted.kind, finished.kind) == (pb.COMPLETION_KIND_ACCEPTED, pb.COMPLETION_KIND_FINISHED)
    assert before.next_sequence < accepted.sequence < finished.sequence
    done = await client.get(job.name)
    assert (accepted.time, finished.time) == (done.seal_time, done.end_time)
    assert (finished.job, finished.dataset, accepted.dataset) == (done, "mine", "mine")
    assert not accepted.sample_results
    assert len(finished.sample_results) == 5
    assert finished.sample_results[0].text.startswith("answer to r")
    page = await completions(client, after_sequence=before.next_sequence, limit=1)
    assert [item.sequence for item in page.completions] == [page.next_sequence] == [accepted.sequence]
    assert (await completions(client, after_sequence=finished.sequence)).completions == []
    assert before.ledger_uid == page.ledger_uid != ""
    theirs = await completions(stranger, limit=500)
    assert job.name not in [item.job.name for item in theirs.completions]


@pytest.mark.parametrize("fields", [{"after_sequence": -1}, {"limit": 501}, {"limit": -1}])
async def test_bad_feed_requests(client: GatewayClient, fields: dict[str, Any]) -> None:
    with refused("INVALID_ARGUMENT"):
        await completions(client, **fields)

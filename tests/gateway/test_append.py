"""`AppendRows` through a real client, gateway and scheduler."""

import asyncio
import json
from typing import Any

import grpc.aio
import pytest

from tests.gateway.client import EOF, AppendStream, GatewayClient, pb, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tidemill.crc import rows_crc32c
from tidemill.errors import Reason
from tidemill.segments import input_rows, read_segment
from tidemill.status import from_rpc_error
from tidemill.store.local import LocalStore
from tidemill.v1 import job_pb2, row_pb2


def folder_of(job: job_pb2.Job) -> str:
    """Where the job's input lies in the object store."""
    _, tenant, _, job_id = job.name.split("/")
    return f"jobs/{tenant}/{job_id}/input"


def segments_of(store: LocalStore, job: job_pb2.Job) -> list[str]:
    return [key for key in store.keys(folder_of(job)) if key.endswith(".parquet")]


async def ended(stream: AppendStream) -> Any:
    """The error that a stream ends with."""
    try:
        while await stream.call.read() is not EOF:
            pass
    except grpc.aio.AioRpcError as exc:
        return from_rpc_error(exc)
    raise AssertionError("the stream ended without an error")


async def test_rows_are_acknowledged_and_stored_as_sent(
    client: GatewayClient, worker: FakeWorker, store: LocalStore
) -> None:
    job = await client.create(worker.model)
    rows = prompts(0, 1000)
    await client.fill(job.name, rows, frame_rows=7)
    stored = [row for key in segments_of(store, job) for row in input_rows(read_segment(store, key))]
    assert [(row.row_index, row.custom_id) for row in stored] == [(i, f"r{i}") for i in range(1000)]
    assert json.loads(stored[5].request) == {"v": 1, "task": "prompt", "prompt": "question 5"}
    assert (await client.get(job.name)).next_offset == 1000


async def test_small_frames_share_segments(client: GatewayClient, worker: FakeWorker, store: LocalStore) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 600), frame_rows=1)
    # 300 rows a segment are set for these tests; the linger may cut a few more.
    assert 2 <= len(segments_of(store, job)) <= 30


async def test_first_message_may_carry_rows(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = AppendStream(client.jobs.AppendRows(metadata=client.metadata, timeout=20))
    await stream.send(0, prompts(0, 3), job=job.name)
    await stream.acked(3)
    assert await stream.finish() == -1


async def test_repeats_are_duplicates_however_they_are_cut(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 700))
    stream = await client.append(job.name)
    for start, count in ((0, 700), (299, 3), (650, 50), (0, 1)):
        await stream.send(start, prompts(start, count))
        response = await stream.read()
        assert response.ack.duplicate
        assert response.ack.next_offset == 700
    await stream.send(700, prompts(700, 10))
    await stream.acked(710)


async def test_a_repeat_of_rows_that_are_not_durable_yet_waits_for_them(
    client: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, prompts(0, 10))
    await stream.send(5, prompts(5, 5))
    duplicate = await stream.read()
    while not duplicate.ack.duplicate:
        duplicate = await stream.read()
    assert duplicate.ack.next_offset == 10


async def test_changed_content_is_refused_row_by_row(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 20))
    stream = await client.append(job.name)
    changed = prompts(0, 20)
    changed[3].prompt = "another"
    changed[7].sampling.temperature = 0.5
    await stream.send(0, changed)
    error = await stream.error()
    assert (error.reason, error.code, error.expected_offset) == ("ROW_CONTENT_MISMATCH", 9, 20)
    assert [(item.index, item.custom_id) for item in error.row_errors] == [(3, "r3"), (7, "r7")]
    await stream.send(20, prompts(20, 1))
    await stream.acked(21)


async def test_gaps_and_straddles_name_the_expected_offset(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 10))
    stream = await client.append(job.name)
    for start, count in ((11, 1), (9, 2), (0, 11), (1 << 40, 1)):
        await stream.send(start, prompts(start, count))
        error = await stream.error()
        assert (error.reason, error.code, error.offset, error.expected_offset) == ("OFFSET_GAP", 11, start, 10)
    await stream.send(-1, prompts(0, 1))
    assert (await stream.error()).reason == "INVALID_ARGUMENT"
    await stream.send(10, prompts(10, 1))
    await stream.acked(11)


async def test_frames_behind_a_refused_one_are_refused_until_the_client_rewinds(
    client: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    bad = prompts(10, 10)
    bad[4].prompt = ""
    await stream.send(0, prompts(0, 10))
    await stream.send(10, bad)
    await stream.send(20, prompts(20, 10))
    first, second = await stream.error(), await stream.error()
    assert (first.reason, first.expected_offset) == ("INVALID_ROWS", 10)
    assert (second.reason, second.expected_offset) == ("OFFSET_GAP", 10)
    await stream.send(10, prompts(10, 10))
    await stream.send(20, prompts(20, 10))
    assert await stream.finish() == 30


async def test_an_empty_frame_asks_for_the_durable_end(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, prompts(0, 10))
    await stream.send(0, [])
    await stream.acked(10)


async def test_checksums_are_checked(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    rows = prompts(0, 5)
    await stream.send(0, rows, crc32c=rows_crc32c(rows) ^ 1)
    error = await stream.error()
    assert (error.reason, error.code, error.expected_offset) == ("CHECKSUM_MISMATCH", 3, 0)
    await stream.send(0, rows, crc32c=rows_crc32c(rows))
    await stream.acked(5)


async def test_a_frame_above_4_mib_is_refused_by_name(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, [row_pb2.Row(custom_id="big", prompt="x" * (4 << 20))])
    error = await stream.error()
    assert (error.reason, error.code) == ("FRAME_TOO_LARGE", 3)
    assert str(4 << 20) in error.message
    await stream.send(0, prompts(0, 1))
    await stream.acked(1)


async def test_a_much_larger_message_ends_the_stream(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, [row_pb2.Row(custom_id="big", prompt="x" * (8 << 20))])
    assert (await ended(stream)).reason is Reason.OVERLOADED
    assert (await client.get(job.name)).next_offset == 0


async def test_custom_ids_are_unique_in_frame_buffer_and_store(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)

    async def refused_id(offset: int, rows: list[row_pb2.Row], index: int) -> None:
        await stream.send(offset, rows)
        error = await stream.error()
        assert error.reason == "INVALID_ROWS"
        found = [(item.index, item.code, item.field) for item in error.row_errors]
        assert found == [(index, "CUSTOM_ID_DUPLICATE", "custom_id")]

    await refused_id(0, [*prompts(0, 3), row_pb2.Row(custom_id="r1", prompt="again")], 3)
    await stream.send(0, prompts(0, 500))
    await refused_id(500, [row_pb2.Row(custom_id="r499", prompt="in the buffer")], 500)
    await stream.send(0, [])
    await stream.acked(500)
    await refused_id(500, [*prompts(500, 5), row_pb2.Row(custom_id="r0", prompt="stored")], 505)
    await stream.call.done_writing()
    stream = await client.append(job.name)
    await refused_id(500, [row_pb2.Row(custom_id="r250", prompt="stored before this stream")], 500)
    await stream.send(500, prompts(500, 5))
    await stream.acked(505)


async def test_a_new_stream_takes_over(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    old = await client.append(job.name)
    await old.send(0, prompts(0, 10))
    await old.acked(10)
    new = await client.append(job.name)
    assert (await ended(old)).reason is Reason.WRITER_SUPERSEDED
    await new.send(10, prompts(10, 10))
    assert await new.finish() == 20


async def test_of_many_streams_opened_at_once_one_lives(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    calls = [AppendStream(client.jobs.AppendRows(metadata=client.metadata, timeout=20)) for _ in range(5)]
    await asyncio.gather(*(stream.send(0, [], job=job.name) for stream in calls))
    reading = {asyncio.create_task(ended(stream)): stream for stream in calls}
    while len(reading) > 1:
        done, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        assert done
        for task in done:
            del reading[task]
            assert task.result().reason is Reason.WRITER_SUPERSEDED
    ((task, survivor),) = reading.items()
    await survivor.send(0, prompts(0, 3))
    await survivor.call.done_writing()
    with pytest.raises(AssertionError, match="without an error"):
        await task
    assert (await client.get(job.name)).next_offset == 3


async def test_a_sealed_or_cancelled_job_takes_no_rows(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 10))
    open_stream = await client.append(job.name)
    await client.seal(job.name, 10)
    await open_stream.send(10, prompts(10, 1))
    assert (await ended(open_stream)).reason in {Reason.JOB_NOT_RECEIVING, Reason.WRITER_SUPERSEDED}
    cancelled = await client.create(worker.model)
    await client.cancel(cancelled.name)
    for name in (job.name, cancelled.name):
        stream = AppendStream(client.jobs.AppendRows(metadata=client.metadata, timeout=20))
        await stream.send(0, [], job=name)
        assert (await ended(stream)).reason is Reason.JOB_NOT_RECEIVING


async def test_the_first_message_must_name_a_job_and_others_no_other(client: GatewayClient, worker: FakeWorker) -> None:
    stream = AppendStream(client.jobs.AppendRows(metadata=client.metadata, timeout=20))
    await stream.send(0, prompts(0, 1))
    assert (await ended(stream)).reason is Reason.INVALID_ARGUMENT
    job, other = await client.create(worker.model), await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, prompts(0, 1), job=job.name)
    await stream.acked(1)
    await stream.send(1, prompts(1, 1), job=other.name)
    assert (await ended(stream)).reason is Reason.INVALID_ARGUMENT


async def test_unknown_fields_are_refused(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    good, bad = prompts(0, 2)
    bad.MergeFromString(b"\xf8\x07\x01")  # field 127, a varint
    await stream.send(0, [good, bad])
    error = await stream.error()
    assert [(item.index, item.code) for item in error.row_errors] == [(1, "UNSUPPORTED_PARAMETER")]
    frame = pb.AppendRowsRequest(offset=0, rows=[good])
    for rows in ([good], []):
        frame = pb.AppendRowsRequest(offset=0, rows=rows)
        frame.MergeFromString(b"\xf8\x07\x01")
        await stream.call.write(frame)
        assert (await stream.error()).reason == "UNSUPPORTED_PARAMETER"


async def test_at_most_a_hundred_bad_rows_are_listed(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, [row_pb2.Row(custom_id=f"r{i}") for i in range(300)])
    error = await stream.error()
    assert len(error.row_errors) == 100
    assert "300 of 300 rows" in error.message


async def test_more_refusals_than_the_outbox_holds_all_arrive(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    for _ in range(200):
        await stream.send(5, prompts(5, 1))
    for _ in range(200):
        assert (await stream.error()).expected_offset == 0
    await stream.send(0, prompts(0, 1))
    await stream.acked(1)


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        (row_pb2.Row(prompt="x"), "CUSTOM_ID_INVALID", "custom_id"),
        (row_pb2.Row(custom_id="ü" * 129, prompt="x"), "CUSTOM_ID_INVALID", "custom_id"),
        (row_pb2.Row(custom_id="a"), "INPUT_MISSING", "input"),
        (row_pb2.Row(custom_id="a", prompt=""), "INPUT_MISSING", "prompt"),
        (row_pb2.Row(custom_id="a", chat=row_pb2.ChatInput()), "INPUT_MISSING", "chat.messages"),
        (
            row_pb2.Row(custom_id="a", prompt="x", sampling=row_pb2.SamplingParams(temperature=2.5)),
            "PARAMETER_OUT_OF_RANGE",
            "sampling.temperature",
        ),
        (row_pb2.Row(custom_id="a", prompt="x" * 513), "PROMPT_TOO_LONG", "prompt"),
    ],
)
async def test_bad_rows_are_named(
    client: GatewayClient, worker: FakeWorker, row: row_pb2.Row, code: str, field: str
) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, [*prompts(0, 6), row])
    error = await stream.error()
    assert (error.reason, error.code) == ("INVALID_ROWS", 3)
    assert [(item.index, item.code, item.field) for item in error.row_errors] == [(6, code, field)]
    assert error.row_errors[0].message
    await stream.send(0, prompts(0, 6))
    await stream.acked(6)


async def test_prompts_are_counted_in_tokens_not_bytes(
    client: GatewayClient, worker: FakeWorker, tokenizer: bytes
) -> None:
    job = await client.create(worker.model, sampling=row_pb2.SamplingParams(max_tokens=12))
    stream = await client.append(job.name)
    fits, long = row_pb2.Row(custom_id="fits", prompt="x" * 500), row_pb2.Row(custom_id="long", prompt="x" * 501)
    await stream.send(0, [fits, long])
    error = await stream.error()
    assert [(item.custom_id, item.code) for item in error.row_errors] == [("long", "PROMPT_TOO_LONG")]
    assert "501 tokens" in error.row_errors[0].message
    assert "512" in error.row_errors[0].message
    own = row_pb2.Row(custom_id="own", prompt="x" * 501, sampling=row_pb2.SamplingParams(max_tokens=11))
    await stream.send(0, [fits, own])
    await stream.acked(2)


async def test_chat_rows_need_a_chat_template(client: GatewayClient, worker: FakeWorker) -> None:
    await worker.offer(worker.report(has_chat_template=False))
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    chat = row_pb2.ChatInput(messages=[row_pb2.ChatMessage(role="user", content="hi")])
    await stream.send(0, [row_pb2.Row(custom_id="a", chat=chat)])
    assert [item.code for item in (await stream.error()).row_errors] == ["CHAT_NOT_SUPPORTED"]


async def test_a_cancelled_call_leaves_what_was_acknowledged(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, prompts(0, 1))
    await stream.acked(1)
    stream.call.cancel()
    # What was acknowledged stays, and the job takes a new stream at once.
    again = await client.append(job.name)
    await again.send(1, prompts(1, 1))
    await again.acked(2)


async def test_what_was_accepted_before_a_connection_broke_need_not_be_sent_again(
    client: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, prompts(0, 10))
    # Once this is refused, the frame before it was accepted.
    await stream.send(99, prompts(99, 1))
    assert (await stream.error()).expected_offset == 10
    stream.call.cancel()
    again = AppendStream(client.jobs.AppendRows(metadata=client.metadata, timeout=20))
    await again.send(0, [], job=job.name)
    assert (await again.read()).ack.next_offset == 10


async def test_a_missing_tokenizer_costs_only_the_early_refusal(client: GatewayClient, worker: FakeWorker) -> None:
    await worker.offer(worker.report(tokenizer_key="models/none/tokenizer.json"))
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, [row_pb2.Row(custom_id="long", prompt="x" * 600)])
    await stream.acked(1)


async def test_a_store_that_cannot_be_written_ends_the_stream_and_keeps_the_job(
    client: GatewayClient, worker: FakeWorker, store: LocalStore
) -> None:
    job = await client.create(worker.model)
    obstacle = store.path(folder_of(job))
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder should be")
    stream = await client.append(job.name)
    await stream.send(0, prompts(0, 1))
    assert (await ended(stream)).reason is Reason.STORE_FAILED
    obstacle.unlink()
    await client.fill(job.name, prompts(0, 1))


async def test_a_changed_segment_is_reported_and_not_compared_with(
    client: GatewayClient, worker: FakeWorker, store: LocalStore
) -> None:
    job = await client.create(worker.model)
    await client.fill(job.name, prompts(0, 5))
    (key,) = segments_of(store, job)
    store.put(key, store.get(key)[:-1] + b"x")
    stream = await client.append(job.name)
    await stream.send(0, prompts(0, 5))
    assert (await ended(stream)).reason is Reason.DATA_CORRUPT


async def test_unknown_job(client: GatewayClient) -> None:
    with refused("JOB_NOT_FOUND"):
        await client.get("tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV")

"""`AppendRowsOnce`: one frame a call, by the rules of the stream."""

from typing import Any

from tests.gateway.client import GatewayClient, collect, pb, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tidemill.crc import rows_crc32c
from tidemill.errors import TidemillError
from tidemill.v1 import row_pb2


async def once(client: GatewayClient, job: str, offset: int, rows: list[row_pb2.Row], **fields: Any) -> pb.AppendAck:
    request = pb.AppendRowsOnceRequest(job=job, offset=offset, rows=rows, **fields)
    return await client.unary(client.jobs.AppendRowsOnce, request)


async def test_frames_are_durable_when_the_call_returns(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    rows = prompts(0, 5)
    assert await once(client, job.name, 0, rows, crc32c=rows_crc32c(rows)) == pb.AppendAck(next_offset=5)
    assert (await client.get(job.name)).next_offset == 5
    assert await once(client, job.name, 5, prompts(5, 2)) == pb.AppendAck(next_offset=7)
    assert await once(client, job.name, 0, []) == pb.AppendAck(next_offset=7)
    assert (await client.seal(job.name, 7)).row_counts.total == 7


async def test_a_repeated_call_is_a_duplicate_and_another_content_is_refused(
    client: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.create(worker.model)
    await once(client, job.name, 0, prompts(0, 5))
    assert await once(client, job.name, 2, prompts(2, 3)) == pb.AppendAck(next_offset=5, duplicate=True)
    with refused("ROW_CONTENT_MISMATCH"):
        await once(client, job.name, 2, prompts(2, 3, "another"))


async def test_refusals_name_rows_and_the_offset_to_go_on_at(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    await once(client, job.name, 0, prompts(0, 5))
    found: list[TidemillError] = []
    for offset, rows in ((6, prompts(6, 1)), (5, [*prompts(5, 1), row_pb2.Row(custom_id="bad")])):
        try:
            await once(client, job.name, offset, rows)
        except TidemillError as exc:
            found.append(exc)
    gap, bad = found
    assert (gap.reason, gap.metadata["expected_offset"]) == ("OFFSET_GAP", "5")
    assert (bad.reason, bad.metadata["row"]) == ("INVALID_ROWS", "6")
    assert [item.field for item in bad.violations] == ["rows[6].input"]
    with refused("CHECKSUM_MISMATCH"):
        await once(client, job.name, 5, prompts(5, 1), crc32c=1)
    for rows in ([], prompts(5, 1)):
        request = pb.AppendRowsOnceRequest(job=job.name, offset=5, rows=rows)
        request.MergeFromString(b"\xf8\x07\x01")  # field 127, a varint
        with refused("UNSUPPORTED_PARAMETER"):
            await client.unary(client.jobs.AppendRowsOnce, request)
    assert (await client.get(job.name)).next_offset == 5


async def test_it_takes_over_from_an_open_stream_unless_it_only_asks(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await once(client, job.name, 0, [])
    await stream.send(0, prompts(0, 3))
    await stream.acked(3)
    await once(client, job.name, 3, prompts(3, 1))
    with refused("WRITER_SUPERSEDED"):
        await collect(stream.call)


async def test_jobs_of_others_and_sealed_ones_take_no_rows(
    client: GatewayClient, stranger: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.create(worker.model)
    await once(client, job.name, 0, prompts(0, 1))
    for rows in ([], prompts(1, 1)):
        with refused("JOB_NOT_FOUND"):
            await once(stranger, job.name, 1, rows)
    await client.seal(job.name, 1)
    with refused("JOB_NOT_RECEIVING"):
        await once(client, job.name, 1, prompts(1, 1))

"""`ReadResults.read_mask`: only what was asked for is sent, and read from the store."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from google.protobuf import field_mask_pb2

from services.gateway.result_fields import ALL_FIELDS, fields_of
from tests.gateway.client import GatewayClient, pb, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import Stack
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2, row_pb2

ORDERS = [pb.RESULT_ORDER_INPUT, pb.RESULT_ORDER_COMPLETION]


async def read(client: GatewayClient, name: str, *paths: str, **fields: Any) -> list[row_pb2.RowResult]:
    mask = field_mask_pb2.FieldMask(paths=paths)
    frames: list[job_service_pb2.ReadResultsResponse] = await client.results(name, read_mask=mask, **fields)
    return [row for frame in frames for row in frame.results]


def only(row: row_pb2.RowResult, names: tuple[str, ...]) -> row_pb2.RowResult:
    """The row with these fields alone."""
    kept = row_pb2.RowResult()
    kept.CopyFrom(row)
    for field, _ in row.ListFields():
        if field.name not in ("row_index", "custom_id", "status", *names):
            kept.ClearField(field.name)  # pyright: ignore[reportArgumentType]
    return kept


@pytest.mark.parametrize("order", ORDERS)
async def test_masked_rows_are_the_rows_with_fewer_fields(
    client: GatewayClient, worker: FakeWorker, order: int
) -> None:
    rows = [*prompts(0, 60), row_pb2.Row(custom_id="fail-60", prompt="x")]
    rows += [row_pb2.Row(custom_id="n", prompt="x", sampling=row_pb2.SamplingParams(n=2, logprobs=1))]
    job = await client.submit(job_pb2.Job(model=worker.model), [rows])
    await worker.end(job.name)
    everything = await read(client, job.name, order=order)
    assert len(everything) == 62
    assert await read(client, job.name, "*", order=order) == everything
    masks = [("text",), ("text", "error_code"), ("logprobs", "alternatives"), ("row_index",), ("engine_record",)]
    for names in masks:
        for start in (0, 7):
            found = await read(client, job.name, *names, order=order, start_offset=start)
            assert found == [only(row, names) for row in everything[start:]]
    text = await read(client, job.name, "text", order=order)
    assert sum(row.ByteSize() for row in text) < sum(row.ByteSize() for row in everything) / 2


async def test_vectors_and_scores_can_be_left_out(client: GatewayClient, worker: FakeWorker) -> None:
    worker.tasks = [model_service_pb2.TASK_EMBED, model_service_pb2.TASK_SCORE, model_service_pb2.TASK_CLASSIFY]
    await worker.offer(worker.report())
    rows = [
        row_pb2.Row(custom_id="e", embedding=row_pb2.EmbeddingInput(text="abc")),
        row_pb2.Row(custom_id="s", score=row_pb2.ScoreInput(query="a", document="b")),
        row_pb2.Row(custom_id="c", classification=row_pb2.ClassificationInput(text="abc")),
    ]
    job = await client.submit(job_pb2.Job(model=worker.model), [rows])
    await worker.end(job.name)
    everything = await read(client, job.name)
    for names in (("embedding",), ("score",), ("classes",), ("text",)):
        assert await read(client, job.name, *names) == [only(row, names) for row in everything]


async def test_what_is_not_asked_for_is_not_read(
    stack: Stack, store: ObjectStore, client: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 50)])
    await worker.end(job.name)
    _spoil_columns(stack.home / "store" / "jobs" / "dev" / job.name.rpartition("/")[2] / "output", "text")
    with refused("DATA_CORRUPT"):
        await read(client, job.name, "text")
    assert [row.custom_id for row in await read(client, job.name, "finish_reason")] == [f"r{n}" for n in range(50)]


def _spoil_columns(folder: Path, name: str) -> None:
    for path in folder.glob("*.parquet"):
        _spoil_column(path, name)


def _spoil_column(path: Path, name: str) -> None:
    """Overwrite the pages of one column in place."""
    file: Any = pq.ParquetFile(str(path))
    group = file.metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    (chunk,) = [column for column in columns if column.path_in_schema == name]
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    with path.open("r+b") as data:
        data.seek(start)
        data.write(b"\xff" * chunk.total_compressed_size)


@pytest.mark.parametrize("path", ["nonsense", "text.x", "alternatives.text", "TEXT", ""])
async def test_unknown_paths_are_refused_by_name(client: GatewayClient, worker: FakeWorker, path: str) -> None:
    job = await client.create(worker.model)
    with refused("INVALID_ARGUMENT") as caught:
        await read(client, job.name, "text", path)
    assert repr(path) in caught.value.message
    assert caught.value.violations[0].field == "read_mask"


def test_every_field_of_a_result_has_its_column() -> None:
    names = {field.name for field in row_pb2.RowResult.DESCRIPTOR.fields}
    assert set(ALL_FIELDS.names) == names
    assert fields_of(field_mask_pb2.FieldMask(paths=["embedding"])).columns == (
        "row_index",
        "custom_id",
        "status",
        "vector",
    )

"""`GetRowProvenance`: each link of the chain behind a row, and what does not fit."""

import pytest

from tests.gateway.client import GatewayClient, prompts, refused
from tests.gateway.fake_worker import RECORD, FakeWorker
from tidemill import digests
from tidemill.store.local import LocalStore
from tidemill.v1 import job_pb2, provenance_pb2, row_pb2

NO_RECORD = f"the engine record: engines/{RECORD.hex()}.json is missing"


async def provenance(client: GatewayClient, job: str, row: int) -> provenance_pb2.RowProvenance:
    request = provenance_pb2.GetRowProvenanceRequest(name=job, row_index=row)
    return await client.unary(client.jobs.GetRowProvenance, request)


@pytest.fixture
async def answered(client: GatewayClient, worker: FakeWorker) -> job_pb2.Job:
    """A finished job of 120 rows in three chunks, row 70 with an error."""
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 120)])
    for lease in await worker.chunks(job.name):
        rows = [index for index in range(lease.chunk_start, lease.chunk_start + lease.chunk_rows) if index != 70]
        await worker.commit(lease, rows)
        if len(rows) < lease.chunk_rows:
            await worker.commit(lease, [70], 1, failed=True)
    await worker.run()
    return await client.get(job.name)


async def test_the_chain_of_an_answered_row(
    client: GatewayClient, worker: FakeWorker, store: LocalStore, answered: job_pb2.Job
) -> None:
    found = await provenance(client, answered.name, 57)
    [frame, *_] = await client.results(answered.name, start_offset=57)
    result = frame.results[0]
    assert found.result == result
    assert (found.job, found.row_index, found.input.custom_id) == (answered.name, 57, result.custom_id)
    assert found.input.input_data_version == answered.input_data_version
    assert (found.output_data_version, found.trace_id) == (answered.output_data_version, answered.trace_id)
    assert found.output_digest == digests.output_digest(result.text).hex()
    for file in (found.input.segment, found.commit.part):
        assert digests.sha256(store.get(file.key)).hex() == file.sha256
        assert file.uri == store.uri(file.key)
    assert (found.commit.chunk_start, found.commit.attempt, found.commit.part_number) == (50, 1, 0)
    assert found.commit.fence > 0
    assert (found.engine.model, found.engine.model_digest, found.engine.build) == (worker.model, "ab" * 32, "fake 1.0")
    # The fake worker stores no engine record.
    assert [text.split(" from")[0] for text in found.mismatches] == [NO_RECORD]


async def test_an_error_is_an_outcome_too(client: GatewayClient, answered: job_pb2.Job) -> None:
    found = await provenance(client, answered.name, 70)
    assert found.result.status == row_pb2.ROW_STATUS_FAILED
    assert found.output_digest == digests.error_digest("ENGINE_REFUSED").hex()
    assert found.commit.part_number == 1


async def test_a_row_without_an_outcome_has_its_request_only(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 3)])
    found = await provenance(client, job.name, 2)
    assert found.input.task == "prompt"
    assert not found.HasField("result")
    assert not found.HasField("commit")
    assert not found.mismatches


@pytest.mark.parametrize("which", ["input", "output"])
async def test_a_changed_file_is_named(
    client: GatewayClient, store: LocalStore, answered: job_pb2.Job, which: str
) -> None:
    before = await provenance(client, answered.name, 3)
    file = before.input.segment if which == "input" else before.commit.part
    path = store.path(file.key)
    # The name of the writer in the footer: the rows stay readable.
    path.write_bytes(path.read_bytes().replace(b"parquet-cpp-arrow", b"parquet-cpp-arroz"))
    found = await provenance(client, answered.name, 3)
    assert any(file.key in text and "changed" in text for text in found.mismatches)


async def test_rows_that_are_not_there_are_refused(client: GatewayClient, answered: job_pb2.Job) -> None:
    for row in (-1, 120, 1 << 62):
        with refused("OFFSET_OUT_OF_RANGE"):
            await provenance(client, answered.name, row)
    with refused("JOB_NOT_FOUND"):
        await provenance(client, answered.name[:-1] + "0", 0)

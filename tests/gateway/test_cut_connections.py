"""An upload of 50,000 rows and its download, each over a connection that is cut at 200 random points.

The client's own resume is all that helps; no engine is needed, since a fake worker answers.
"""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.conftest import next_model
from tests.gateway.cutting_proxy import CuttingProxy
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import Stack
from tidemill.client import Client
from tidemill.digests import INPUT_SPEC, data_version, row_digest
from tidemill.encoding import encode_request
from tidemill.merkle import Frontier
from tidemill.store import open_store
from tidemill.v1 import row_pb2

ROWS = 50_000
CUTS = 200
SEED = 20261121
# Frames and chunks small beside what a connection may carry, so that cuts fall all over the rows.
FRAME_ROWS = 100
CHUNK_ROWS = 200
MOST_UPLOADED = 36_000
MOST_DOWNLOADED = 60_000


def rows() -> Iterator[row_pb2.Row]:
    """Rows whose content follows from their index."""
    for index in range(ROWS):
        yield row_pb2.Row(custom_id=f"r{index}", prompt=f"question {index} of a long list that is sent in pieces")


def expected_version() -> str:
    leaves = [row_digest(row.custom_id, encode_request(row)) for row in rows()]
    return data_version(INPUT_SPEC, ROWS, Frontier().extend(leaves).root()).hex()


def allowances(most: int) -> list[int]:
    source = random.Random(SEED)  # noqa: S311 - test data
    return [source.randrange(most) for _ in range(CUTS)]


@pytest.fixture
def small_chunks(tmp_path: Path) -> Iterator[Stack]:
    # The fake worker does not extend its leases, and the machine may be busy.
    settings = {"TIDEMILL_SCHEDULER_CHUNK_ROWS": str(CHUNK_ROWS), "TIDEMILL_SCHEDULER_LEASE_SECONDS": "600"}
    stack = Stack(tmp_path, settings=settings)
    try:
        stack.start("scheduler")
        stack.start("gateway")
        yield stack
    finally:
        stack.close()


def upload(stack: Stack, model: str) -> str:
    """Append all rows over a bad connection; the sealed job."""
    with (
        CuttingProxy(stack.address_of("gateway"), allowances(MOST_UPLOADED)) as proxy,
        Client(proxy.address, stack.key) as client,
    ):
        job, _ = client.create(client.new_job(model=model))
        assert client.append(job, rows()) == ROWS
        sealed = client.seal(job, ROWS)
        assert proxy.cuts == CUTS
        assert sealed.row_counts.total == ROWS
        assert sealed.input_data_version == expected_version()
        return job.name


def download(stack: Stack, job: str) -> list[row_pb2.RowResult]:
    """All results over a bad connection."""
    with (
        CuttingProxy(stack.address_of("gateway"), allowances(MOST_DOWNLOADED)) as proxy,
        Client(proxy.address, stack.key) as client,
    ):
        found = list(client.job(job).results())
        assert proxy.cuts == CUTS
        return found


async def test_an_upload_and_a_download_survive_200_cuts_each(
    small_chunks: Stack, tokenizer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.client.frames.FRAME_ROWS", FRAME_ROWS)
    # Pauses that double would take most of the time.
    monkeypatch.setattr("tidemill.client.transport._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("tidemill.client.transport._LONGEST_PAUSE", 0.05)
    stack = small_chunks
    store = open_store((stack.home / "store").as_uri())
    async with FakeWorker(stack.address_of("scheduler"), store, next_model(), tokenizer) as worker:
        job = await asyncio.to_thread(upload, stack, worker.model)
        await worker.end(job)
    found = await asyncio.to_thread(download, stack, job)
    assert [(row.row_index, row.custom_id, row.text) for row in found] == [
        (index, f"r{index}", f"answer to r{index}") for index in range(ROWS)
    ]
    with Client(stack.address_of("gateway"), stack.key) as client:
        assert [row.SerializeToString() for row in await asyncio.to_thread(list, client.job(job).results())] == [
            row.SerializeToString() for row in found
        ]

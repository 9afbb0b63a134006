"""A big job leaves the worker's memory flat: chunks, parts and the closing task, with an engine that is made up."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.inference import chunk_task, slices, source
from services.inference.answers import Origin, result_row
from services.inference.backlog import Backlog
from services.inference.chunk_task import ChunkTask
from services.inference.engine_config import Answer, Outcome
from services.inference.finalise import FinaliseTask
from services.inference.held import HeldLease
from services.inference.store_link import StoreLink
from tests.inference.fakes import FakeScheduler
from tests.inference.rows import input_row, prompt
from tests.inference.test_chunk_task import JOB, FakeEngines
from tidemill import digests, segments
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.merkle import Frontier
from tidemill.store import open_store
from tidemill.v1 import job_pb2

MIB = 1 << 20
SEGMENT_ROWS, CHUNK_ROWS = 4096, 4096
ANSWER = "and so on " * 200
SPEC = records_pb2.JobSpec(name=JOB, tenant="acme", model="m")


class BigJob:
    """A job of many rows, run by `ChunkTask` and `FinaliseTask` against a scheduler that is made up."""

    def __init__(self, folder: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uri, self.rows = folder.as_uri(), rows
        self.store = open_store(self.uri)
        self.segments: list[records_pb2.SegmentRef] = []
        self.scheduler: Any = FakeScheduler(self.segments)
        frontier = Frontier()
        for start in range(0, rows, SEGMENT_ROWS):
            frontier = self._write(start, min(start + SEGMENT_ROWS, rows), frontier)
        self.version = digests.data_version(digests.INPUT_SPEC, rows, frontier.root())
        self.wanted: list[source.Slice] = []
        monkeypatch.setattr(chunk_task, "read_chunk", lambda _uri, wanted: self.wanted.extend(wanted))
        monkeypatch.setattr(chunk_task, "run_chunk", lambda dataset, _processor: dataset)
        monkeypatch.setattr(chunk_task, "stream_slices", self._stream)

    def _write(self, start: int, end: int, frontier: Frontier) -> Frontier:
        rows = [input_row(index, prompt(f"r{index}", f"text {index}")) for index in range(start, end)]
        file = segments.write_segment(self.store, f"in/{start}.parquet", segments.input_table(rows))
        self.segments.append(records_pb2.SegmentRef(key=file.key, start=start, count=end - start, sha256=file.sha256))
        return frontier.extend(row.digest for row in rows)

    async def _stream(self, build: Any, _patience: Any, _backlog: Any) -> AsyncIterator[Any]:
        self.wanted.clear()
        build()
        for table in self._answers():
            yield table

    def _answers(self) -> Iterator[Any]:
        answer = Answer(ANSWER, "stop", 5, 2, 1, 0.1, 0.2, 0.3)
        for item in self.wanted:
            for block in source.read_slice(self.uri, item):
                for table in slices.unpack(block):
                    rows = segments.input_rows(table)
                    yield segments.result_table(
                        [result_row(row, Outcome(row.row_index, answer), Origin(1, 0, "d" * 64, "b")) for row in rows]
                    )

    async def chunk(self, start: int) -> None:
        """Run one chunk."""
        count, engines = min(CHUNK_ROWS, self.rows - start), FakeEngines()
        covering = [item for item in self.segments if item.start < start + count and start < item.start + item.count]
        lease = pb.Lease(spec=SPEC, fence=start + 1, chunk_start=start, chunk_rows=count, attempt=1, segments=covering)
        links: Any = engines
        await ChunkTask(
            HeldLease(lease), links, StoreLink(self.store), self.uri, self.scheduler, 512, 0.2, Backlog(MIB)
        ).run()

    async def close(self) -> None:
        """Run the closing task."""
        lease = pb.Lease(
            kind=pb.LEASE_KIND_FINALISE,
            spec=SPEC,
            fence=self.rows + 1,
            outcome=job_pb2.JOB_STATE_SUCCEEDED,
            row_count=self.rows,
            input_data_version=self.version,
        )
        await FinaliseTask(HeldLease(lease), StoreLink(self.store), self.scheduler, "t" * 64).run()


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


async def growth(job: BigJob) -> int:
    """Bytes that the process grew by after the first half, in which pools and caches fill."""
    starts, most = list(range(0, job.rows, CHUNK_ROWS)), 0
    warm = len(starts) // 2
    for start in starts[:warm]:
        await job.chunk(start)
    before = resident()
    for start in starts[warm:]:
        await job.chunk(start)
        most = max(most, resident())
    await job.close()
    assert job.scheduler.finished[0].tally.succeeded == job.rows
    return max(most, resident()) - before


@pytest.mark.timeout(300)
async def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = BigJob(tmp_path, 60_000, monkeypatch)
    assert await growth(job) < 30 * MIB, f"half of the answers are {job.rows * len(ANSWER) // 2 // MIB} MiB"


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_million_rows_leave_memory_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await growth(BigJob(tmp_path, 1_000_000, monkeypatch)) < 100 * MIB

"""Condemned rows: not run, and said so."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.backlog import Backlog
from services.inference.chunk_task import ChunkTask
from services.inference.condemned import condemned_table
from services.inference.held import HeldLease
from services.inference.source import plan_slices
from services.inference.store_link import StoreLink
from tests.inference.fakes import FakeScheduler
from tests.inference.rows import input_row, prompt
from tidemill import digests, rowset, segments
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.store import ObjectStore, open_store
from tidemill.v1 import row_pb2

JOB = "tenants/acme/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
START, ROWS = 3, 10
ROW_SETS = st.sets(st.integers(0, ROWS - 1))


def stored_segments(store: ObjectStore) -> list[records_pb2.SegmentRef]:
    """Sixteen rows in two segments."""
    references: list[records_pb2.SegmentRef] = []
    for start, end in ((0, 7), (7, 16)):
        rows = [input_row(index, prompt(f"r{index}", f"text {index}")) for index in range(start, end)]
        file = segments.write_segment(store, f"in/{start}.parquet", segments.input_table(rows))
        references.append(records_pb2.SegmentRef(key=file.key, start=start, count=end - start, sha256=file.sha256))
    return references


def lease(segment_list: list[records_pb2.SegmentRef], condemned: set[int], done: set[int]) -> pb.Lease:
    """A chunk over both segments."""
    return pb.Lease(
        kind=pb.LEASE_KIND_CHUNK,
        spec=records_pb2.JobSpec(name=JOB, model="m"),
        fence=7,
        attempt=5,
        chunk_start=START,
        chunk_rows=ROWS,
        done_bitmap=rowset.to_bytes(rowset.of_indices(done), ROWS),
        condemned_bitmap=rowset.to_bytes(rowset.of_indices(condemned), ROWS),
        segments=segment_list,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return open_store(tmp_path_factory.mktemp("store").as_uri())


@pytest.fixture(scope="module")
def both(store: ObjectStore) -> list[records_pb2.SegmentRef]:
    return stored_segments(store)


@settings(deadline=None)
@given(condemned=ROW_SETS, done=ROW_SETS)
def test_every_open_row_is_run_or_condemned(
    store: ObjectStore, both: list[records_pb2.SegmentRef], condemned: set[int], done: set[int]
) -> None:
    work = lease(both, condemned, done)
    table = condemned_table(store, work)
    given_up = [] if table is None else [row.row_index - START for row in segments.result_rows(table)]
    run = [row - START for item in plan_slices(work, 4) for piece in item.pieces for row in piece.rows]
    assert given_up == sorted(condemned - done)
    assert run == sorted(set(range(ROWS)) - condemned - done)


def test_a_condemned_row_says_what_happened_and_what_helps(
    store: ObjectStore, both: list[records_pb2.SegmentRef]
) -> None:
    (row,) = segments.result_rows(condemned_table(store, lease(both, {5}, set())))
    assert (row.row_index, row.custom_id, row.status) == (8, "r8", row_pb2.ROW_STATUS_FAILED)
    assert (row.error_code, row.output_digest) == ("WORKER_CRASHED", digests.error_digest("WORKER_CRASHED"))
    assert (row.attempt, row.chunk_start, row.model_digest, row.text) == (5, START, "", None)
    assert row.request_digest == input_row(8, prompt("r8", "text 8")).digest
    for word in ("died", "prompt", "send the row again"):
        assert word in row.error_message


async def test_a_chunk_of_condemned_rows_needs_no_engine(tmp_path: Path) -> None:
    store, scheduler = open_store(tmp_path.as_uri()), FakeScheduler([])
    held = HeldLease(lease(stored_segments(store), set(range(ROWS)) - {2}, {2}))
    engines: Any = None
    link: Any = scheduler
    task = ChunkTask(
        held, engines, StoreLink(store), tmp_path.as_uri(), link, call_rows=4, part_seconds=1.0, backlog=Backlog(1)
    )
    await task.run()
    (part,) = scheduler.committed
    assert rowset.from_bytes(part.row_bitmap) == rowset.full(ROWS) & ~(1 << 2)
    assert (part.tally.failed, part.row_count, part.part_number) == (9, 9, 0)

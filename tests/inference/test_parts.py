"""Parts: cut by time, each row committed once."""

from pathlib import Path

import pytest

from services.inference.answers import Origin, result_row
from services.inference.engine_config import Answer, Outcome, Refusal
from services.inference.held import HeldLease
from services.inference.link import LeaseVoidError
from services.inference.parts import PartCutter, PartWriter
from services.inference.store_link import StoreLink
from tests.inference.fakes import FakeScheduler
from tests.inference.rows import input_row, prompt
from tidemill import rowset, segments
from tidemill.errors import RowCode
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.store import ObjectStore, open_store

JOB = "tenants/acme/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
ORIGIN = Origin(1, 100, "d" * 64, "vllm 0 (cpu)")


def table(*indices: int) -> object:
    rows: list[segments.ResultRow] = []
    for index in indices:
        answer: Answer | Refusal = Answer(f"answer {index}", "stop", 5, 2, 1, 0.1, 0.2, 0.3)
        if index % 5 == 0:
            answer = Refusal(RowCode.PROMPT_TOO_LONG, "too long")
        rows.append(result_row(input_row(index, prompt(f"r{index}", "text")), Outcome(index, answer), ORIGIN))
    return segments.result_table(rows)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path.as_uri())


def writer(store: ObjectStore, scheduler: FakeScheduler, held: HeldLease, done: int = 0) -> PartWriter:
    return PartWriter(held, StoreLink(store), scheduler, chunk_start=100, chunk_rows=8, done=done)  # type: ignore[arg-type]


def held() -> HeldLease:
    return HeldLease(pb.Lease(spec=records_pb2.JobSpec(name=JOB, model="m"), fence=7))


def test_a_part_is_due_a_second_after_its_first_row() -> None:
    now = [10.0]
    cutter = PartCutter(1.0, lambda: now[0])
    assert cutter.seconds_left is None
    cutter.add("a")
    now[0] = 10.4
    cutter.add("b")
    assert cutter.seconds_left == pytest.approx(0.6)
    now[0] = 11.5
    assert cutter.seconds_left == 0
    assert cutter.take() == ["a", "b"]
    assert cutter.seconds_left is None


async def test_rows_are_committed_in_order_and_once(store: ObjectStore) -> None:
    scheduler, lease = FakeScheduler([]), held()
    part_writer = writer(store, scheduler, lease, done=rowset.of_indices([0]))
    await part_writer.commit([table(103, 101), table(101, 100)], "d", "b")
    await part_writer.commit([table(103)], "d", "b")
    await part_writer.commit([table(107, 102, 106, 105, 104)], "d", "b")
    assert part_writer.complete
    rows = [list(rowset.indices(rowset.from_bytes(part.row_bitmap))) for part in scheduler.committed]
    assert rows == [[1, 3], [2, 4, 5, 6, 7]]
    part = scheduler.committed[1]
    assert part.key == f"jobs/acme/01ARZ3NDEKTSV4RRFFQ69G5FAV/output/{100:012d}-7-00001.parquet"
    assert (part.tally.succeeded, part.tally.failed, part.tally.prompt_tokens) == (4, 1, 20)
    stored = list(segments.result_rows(segments.read_segment(store, part.key, sha256=part.sha256)))
    assert [row.row_index for row in stored] == [102, 104, 105, 106, 107]
    assert stored[2].error_code == "PROMPT_TOO_LONG"
    assert stored[2].text is None


async def test_a_void_lease_commits_nothing(store: ObjectStore) -> None:
    scheduler, lease = FakeScheduler([]), held()
    lease.void.set()
    with pytest.raises(LeaseVoidError):
        await writer(store, scheduler, lease).commit([table(100)], "d", "b")
    assert scheduler.committed == []

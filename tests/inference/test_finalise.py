"""Closing a job: what is left is given up with its reason, and nothing that is not whole gets a manifest."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from services.inference.answers import Origin, result_row
from services.inference.engine_config import Answer, Outcome
from services.inference.finalise import FinaliseTask
from services.inference.held import HeldLease
from services.inference.identity import Record
from services.inference.parts import PartWriter
from services.inference.store_link import StoreLink
from tests.inference.fakes import FakeScheduler
from tests.inference.rows import input_row, prompt
from tests.stores import folder_store
from tidemill import digests, rowset, segments
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.merkle import Frontier
from tidemill.store.local import LocalStore
from tidemill.v1 import job_pb2, row_pb2

JOB = "tenants/acme/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
ROWS, CHUNK = 25, 10
RECORD = Record(b"\x0e" * 32, job_pb2.EQUAL_ANSWERS_PROMISED)


class Bench:
    """A job of 25 rows in two segments, chunks of 10, and the closing of it."""

    def __init__(self, folder: Path) -> None:
        self.store: LocalStore = folder_store(folder)
        self.rows = [input_row(index, prompt(f"r{index}", f"text {index}")) for index in range(ROWS)]
        self.segments = [self._segment(0, 13), self._segment(13, ROWS)]
        self.scheduler = FakeScheduler(self.segments)
        root = Frontier().extend([row.digest for row in self.rows]).root()
        self.unknown_columns: list[str] = []
        self.version = digests.data_version(digests.INPUT_SPEC, ROWS, root)

    def _segment(self, start: int, end: int) -> records_pb2.SegmentRef:
        file = segments.write_segment(self.store, f"in/{start}.parquet", segments.input_table(self.rows[start:end]))
        return records_pb2.SegmentRef(key=file.key, start=start, count=end - start, sha256=file.sha256)

    async def answer(self, *indices: int, fence: int = 3) -> None:
        """Commit answers of these rows, one part a chunk."""
        for start in range(0, ROWS, CHUNK):
            inside = [index for index in indices if start <= index < start + CHUNK]
            if inside:
                await self.commit(inside, start, min(CHUNK, ROWS - start), fence)

    async def commit(self, indices: list[int], start: int, rows: int, fence: int) -> None:
        """Commit answers of these rows of the chunk `[start, start + rows)`."""
        link: Any = self.scheduler
        held = self.lease(fence=fence)
        writer = PartWriter(held, StoreLink(self.store), link, chunk_start=start, chunk_rows=rows, done=0)
        await writer.commit([self._table(indices, start)], "d" * 64, "vllm 0 (cpu)")

    def _table(self, indices: list[int], start: int) -> Any:
        origin = Origin(1, start, "d" * 64, "vllm 0 (cpu)", RECORD)
        answers = [Outcome(index, Answer(f"answer {index}", "stop", 5, 2, 0, None, None, None)) for index in indices]
        table = segments.result_table([result_row(self.rows[item.row_index], item, origin) for item in answers])
        return table.drop_columns(self.unknown_columns)

    def lease(self, fence: int = 9, outcome: Any = job_pb2.JOB_STATE_SUCCEEDED, **fields: Any) -> HeldLease:
        spec = records_pb2.JobSpec(name=JOB, tenant="acme", model="m")
        return HeldLease(
            pb.Lease(
                kind=pb.LEASE_KIND_FINALISE,
                spec=spec,
                fence=fence,
                attempt=1,
                outcome=outcome,
                row_count=ROWS,
                input_data_version=self.version,
                input_manifest_key="in/manifest.json",
                dataset="set",
                **fields,
            )
        )

    async def close(self, held: HeldLease) -> dict[str, Any]:
        """Run the task; the manifest."""
        link: Any = self.scheduler
        await FinaliseTask(held, StoreLink(self.store), link, "t" * 64).run()
        return json.loads(self.store.get(self.scheduler.finished[-1].output_manifest_key))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_whole_job_gets_its_manifest(bench: Bench) -> None:
    await bench.answer(*range(ROWS))
    document = await bench.close(bench.lease())
    finish = bench.scheduler.finished[0]
    assert (finish.tally.succeeded, finish.tally.output_tokens) == (ROWS, 2 * ROWS)
    assert document["data_version"] == finish.output_data_version.hex()
    assert (document["state"], document["row_count"], document["parent"]) == ("SUCCEEDED", ROWS, bench.version.hex())
    engine = {"model_digest": "d" * 64, "engine_build": "vllm 0 (cpu)", "rows": ROWS, "record": RECORD.name}
    assert document["engines"] == [engine]
    leaves = [
        digests.output_leaf(index, f"r{index}", row_pb2.ROW_STATUS_SUCCEEDED, digests.output_digest(f"answer {index}"))
        for index in range(ROWS)
    ]
    assert document["merkle_root"] == Frontier().extend(leaves).root().hex()


async def test_the_version_does_not_depend_on_parts(tmp_path: Path) -> None:
    whole, split = Bench(tmp_path / "a"), Bench(tmp_path / "b")
    await whole.answer(*range(ROWS))
    await split.answer(*range(1, ROWS, 2))
    await split.answer(*range(0, ROWS, 2), fence=4)
    versions = {(await item.close(item.lease()))["data_version"] for item in (whole, split)}
    assert len(versions) == 1


async def test_parts_of_an_earlier_version_count_beside_new_ones(bench: Bench) -> None:
    await bench.answer(*range(1, ROWS, 2))
    bench.unknown_columns = ["engine_record"]
    await bench.answer(*range(0, ROWS, 2), fence=4)
    document = await bench.close(bench.lease())
    assert [(item["record"], item["rows"]) for item in document["engines"]] == [("", 13), (RECORD.name, 12)]


async def test_a_chunk_that_was_halved_after_its_first_part_is_whole(bench: Bench) -> None:
    for fence, (start, rows, indices) in enumerate(
        [(0, 10, [1, 8]), (10, 15, [12, 24]), (10, 8, [10, 11, *range(13, 18)]), (18, 7, [*range(18, 24)])], start=3
    ):
        await bench.commit(indices, start, rows, fence)
    for start, indices in ((0, [0, 2, 3, 4]), (5, [5, 6, 7, 9])):
        await bench.commit(indices, start, 5, start + 20)
    document = await bench.close(bench.lease())
    assert (document["state"], document["counts"]["succeeded"]) == ("SUCCEEDED", ROWS)


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (job_pb2.JOB_STATE_CANCELLED, row_pb2.ROW_STATUS_CANCELLED, "JOB_CANCELLED"),
        (job_pb2.JOB_STATE_EXPIRED, row_pb2.ROW_STATUS_EXPIRED, "JOB_EXPIRED"),
    ],
)
async def test_remainders_say_why(bench: Bench, outcome: Any, status: int, code: str) -> None:
    await bench.answer(0, 1, 12)
    remainders = [
        pb.Remainder(chunk_start=0, chunk_rows=10, done_bitmap=rowset.to_bytes(0b11, 10)),
        pb.Remainder(chunk_start=10, chunk_rows=10, done_bitmap=rowset.to_bytes(0b100, 10)),
        pb.Remainder(chunk_start=20, chunk_rows=5, done_bitmap=rowset.to_bytes(0, 5)),
    ]
    document = await bench.close(bench.lease(outcome=outcome, remainders=remainders))
    assert sum(document["counts"].values()) == ROWS
    assert document["counts"]["succeeded"] == 3
    given_up = [part for part in bench.scheduler.committed if part.fence == 9]
    assert [part.part_number for part in given_up] == [0, 1, 2]
    rows = [
        row
        for part in given_up
        for row in segments.result_rows(segments.read_segment(bench.store, part.key, sha256=part.sha256))
    ]
    assert [row.row_index for row in rows] == [*range(2, 12), *range(13, ROWS)]
    assert {(row.status, row.error_code, row.text) for row in rows} == {(status, code, None)}


async def test_a_failed_job_gives_its_own_reason(bench: Bench) -> None:
    remainders = [pb.Remainder(chunk_start=0, chunk_rows=ROWS, done_bitmap=rowset.to_bytes(0, ROWS))]
    held = bench.lease(
        outcome=job_pb2.JOB_STATE_FAILED,
        remainders=remainders,
        error_reason="MODEL_WEIGHTS_CHANGED",
        error_message="they changed",
    )
    document = await bench.close(held)
    part = bench.scheduler.committed[0]
    rows = segments.result_rows(segments.read_segment(bench.store, part.key))
    assert {(row.error_code, row.error_message) for row in rows} == {("MODEL_WEIGHTS_CHANGED", "they changed")}
    assert document["counts"]["failed"] == ROWS


async def test_a_missing_row_gets_no_manifest(bench: Bench) -> None:
    await bench.answer(*(index for index in range(ROWS) if index != 17))
    await refused(bench, "chunk 10 of 10 rows has results for 9 rows")


async def test_a_missing_chunk_gets_no_manifest(bench: Bench) -> None:
    await bench.answer(*range(10), *range(20, ROWS))
    await refused(bench, "row 10 has no result")


async def test_a_changed_part_gets_no_manifest(bench: Bench) -> None:
    await bench.answer(*range(ROWS))
    path = bench.store.path(bench.scheduler.committed[1].key)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    await refused(bench, "was changed after it was written")


async def test_an_answer_to_another_request_gets_no_manifest(bench: Bench) -> None:
    bench.rows[4] = input_row(4, prompt("r4", "another text"))
    await bench.answer(*range(ROWS))
    await refused(bench, "row 4 belongs to another request")


async def test_another_input_than_the_sealed_gets_no_manifest(bench: Bench) -> None:
    await bench.answer(*range(ROWS))
    bench.version = bytes(32)
    await refused(bench, "is not what was sealed")


async def refused(bench: Bench, message: str) -> None:
    with pytest.raises(TidemillError, match=message) as caught:
        await bench.close(bench.lease())
    assert caught.value.reason is Reason.DATA_CORRUPT
    assert bench.scheduler.finished == []
    assert not bench.store.exists("jobs/acme/01ARZ3NDEKTSV4RRFFQ69G5FAV/output/manifest.json")


async def test_closing_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    bench, aside = Bench(tmp_path / "store"), tmp_path / "aside"
    await bench.answer(*range(ROWS))
    bench.store.root.rename(aside)
    closing = asyncio.create_task(bench.close(bench.lease()))
    await asyncio.wait({closing}, timeout=0.7)
    assert not closing.done()
    aside.rename(bench.store.root)
    document = await asyncio.wait_for(closing, 30)
    assert document["usage"] == {"prompt_tokens": 5 * ROWS, "output_tokens": 2 * ROWS, "cached_tokens": 0}

"""Which rows a task reads."""

from pathlib import Path

import pytest

from services.inference import slices
from services.inference.source import InputUnreadableError, plan_slices, read_slice
from tests.inference.rows import input_row, prompt
from tidemill import rowset, segments
from tidemill.errors import Reason
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.store import open_store


def lease(tmp_path: Path, counts: list[int], start: int, rows: int, done: set[int]) -> pb.Lease:
    store = open_store(tmp_path.as_uri())
    references: list[records_pb2.SegmentRef] = []
    at = 0
    for count in counts:
        stored = [input_row(index, prompt(f"r{index}", f"text {index}")) for index in range(at, at + count)]
        file = segments.write_segment(store, f"in/{at}.parquet", segments.input_table(stored))
        references.append(records_pb2.SegmentRef(key=file.key, start=at, count=count, sha256=file.sha256))
        at += count
    bitmap = rowset.to_bytes(rowset.of_indices(done), rows)
    return pb.Lease(chunk_start=start, chunk_rows=rows, done_bitmap=bitmap, segments=references)


def test_open_rows_are_cut_over_segments(tmp_path: Path) -> None:
    work = lease(tmp_path, [5, 3, 8], start=2, rows=12, done={0, 4})
    planned = plan_slices(work, 4)
    read = [
        row.row_index
        for item in planned
        for block in read_slice(tmp_path.as_uri(), item)
        for table in slices.unpack(block)
        for row in segments.input_rows(table)
    ]
    assert [item.size for item in planned] == [4, 4, 2]
    assert read == [3, 4, 5, 7, 8, 9, 10, 11, 12, 13]


def test_a_finished_chunk_has_no_slices(tmp_path: Path) -> None:
    assert plan_slices(lease(tmp_path, [4], start=0, rows=4, done={0, 1, 2, 3}), 4) == []


def test_a_changed_segment_is_an_error_that_travels(tmp_path: Path) -> None:
    import pickle

    work = lease(tmp_path, [4], start=0, rows=4, done=set())
    (tmp_path / "in/0.parquet").write_bytes(b"other")
    with pytest.raises(InputUnreadableError) as caught:
        list(read_slice(tmp_path.as_uri(), plan_slices(work, 4)[0]))
    assert pickle.loads(pickle.dumps(caught.value)).error.reason is Reason.DATA_CORRUPT  # noqa: S301

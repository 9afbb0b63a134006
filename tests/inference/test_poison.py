"""A row that kills its engine, with real processes: it ends as an error row, and every other row has its answer."""

import json
import re
from pathlib import Path

import pytest

from tests.inference.poisoned_service import POISON
from tests.inference.processes import wait_until, world
from tests.inference.rows import prompt
from tidemill import rowset
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.tiny_model import make_tiny
from tidemill.v1 import job_pb2, model_service_pb2, row_pb2

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

ROWS = 6
BAD = 3


def rows() -> list[row_pb2.Row]:
    """Two run at a time: beside the bad one, which is the longest, the others end one by one."""
    texts = [f"Day {index} at sea" for index in range(ROWS)]
    texts[BAD] = f"{POISON} on day {BAD}"
    return [
        prompt(f"r{index}", text, temperature=0, ignore_eos=True, max_tokens=900 if index == BAD else 20)
        for index, text in enumerate(texts)
    ]


def test_a_row_that_kills_its_engine_costs_itself_and_no_other(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny")
    with world(tmp_path, lease_seconds="20") as stack:
        service = stack.inference(
            f"tiny={tmp_path}/tiny",
            module="tests.inference.poisoned_service",
            preload="tiny",
            part_seconds="0.2",
            max_num_seqs="2",
        )
        name = stack.submit(rows())
        job = stack.ended(name, 900)
        assert (job.state, job.error_message) == (job_pb2.JOB_STATE_SUCCEEDED, "")
        results = stack.results(name)
        assert [row.row_index for row in results] == list(range(ROWS))
        assert {row.row_index: row.error_code for row in results if row.error_code} == {BAD: "WORKER_CRASHED"}
        assert all(row.text for row in results if row.row_index != BAD)
        document = json.loads(stack.store.get(job.output_manifest_key))
        assert (document["counts"]["succeeded"], document["counts"]["failed"]) == (ROWS - 1, 1)

        parts = stack.stub.ListParts(pb.ListPartsRequest(job=name, limit=100)).parts
        chunks = {(part.chunk_start, part.chunk_rows) for part in parts}
        assert (0, ROWS) in chunks, "some rows had their result before the chunk was halved"
        assert len(chunks) > 1, "and it was halved"
        assert all(rowset.from_bytes(part.row_bitmap) for part in parts)

        wait_until(lambda: (report := stack.model("tiny")) and report.state != model_service_pb2.MODEL_STATE_FAILED, 60)
        log = (tmp_path / "tests.inference.poisoned_service.out").read_text()
        assert 4 <= len(re.findall('"event": ?"engine died"', log)) <= 8
        assert service.process.poll() is None

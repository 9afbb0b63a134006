"""Verdicts on replayed rows, and a replay through a real service with a worker without an engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.service import Service
from tidemill.cli.replay import parse_rows, spread
from tidemill.client import Client
from tidemill.client.replay import Verdict, compare
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, provenance_pb2, row_pb2

PROMISED, NOT_PROMISED = job_pb2.EQUAL_ANSWERS_PROMISED, job_pb2.EQUAL_ANSWERS_NOT_PROMISED


def row(
    digest: str = "aa", *, repeatable: bool = True, error: str = "", **engine: object
) -> provenance_pb2.RowProvenance:
    """A row with an outcome, answered by an engine that promises the same again."""
    fields = {"model_digest": "m", "build": "vllm 1 (cpu)", "record": "r", "equal_answers": PROMISED} | engine
    status = row_pb2.ROW_STATUS_FAILED if error else row_pb2.ROW_STATUS_SUCCEEDED
    return provenance_pb2.RowProvenance(
        row_index=7,
        input=provenance_pb2.RowInput(repeatable=repeatable),
        engine=provenance_pb2.RowEngine(**fields),  # pyright: ignore[reportArgumentType]
        result=row_pb2.RowResult(status=status, error_code=error),
        output_digest=digest,
    )


def test_equal_digests_are_the_same_whatever_else_differs() -> None:
    found = compare(row(), row(build="vllm 2 (gpu)", record="s"))
    assert (found.verdict, found.reasons, found.row_index) == (Verdict.SAME, (), 7)


def test_another_answer_of_the_same_engine_is_different() -> None:
    found = compare(row(), row("bb"))
    assert (found.verdict, found.before, found.after) == (Verdict.DIFFERENT, "aa", "bb")


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        (row(repeatable=False), row("bb"), "at random"),
        (row(), row("bb", model_digest="n"), "weights changed from m to n"),
        (row(template_digest="t"), row("bb"), "template changed from t to none"),
        (row(), row("bb", build="vllm 1 (gpu)"), "build or device"),
        (row(), row("bb", record="s"), "settings or machine"),
        (row(equal_answers=NOT_PROMISED), row("bb", equal_answers=NOT_PROMISED), "does not promise"),
        (row(error="PROMPT_TOO_LONG"), row(error="PROMPT_TOO_LONG"), "first time there was no answer: PROMPT_TOO_LONG"),
        (row(), row("bb", error="WORKER_CRASHED"), "second time there was no answer: WORKER_CRASHED"),
    ],
)
def test_what_cannot_be_compared_says_why(
    before: provenance_pb2.RowProvenance, after: provenance_pb2.RowProvenance, word: str
) -> None:
    found = compare(before, after)
    assert found.verdict is Verdict.NOT_COMPARABLE
    assert word in "; ".join(found.reasons)


def test_an_answer_whose_digests_do_not_agree_is_not_trusted() -> None:
    changed = row()
    changed.mismatches.append("the stored output is not what its digest says")
    assert compare(changed, row()).verdict is Verdict.NOT_COMPARABLE


@given(st.sets(st.integers(0, 500), min_size=1))
def test_rows_are_read_as_they_are_written(rows: set[int]) -> None:
    assert parse_rows(",".join(str(number) for number in rows)) == sorted(rows)


def test_ranges_of_rows() -> None:
    assert parse_rows("0, 7,10-12,11") == [0, 7, 10, 11, 12]
    for text in ("", "x", "-1", "5-3", "1-", "0-10000", "1,,2", "\u0663"):
        with pytest.raises(TidemillError) as refused:
            parse_rows(text)
        assert refused.value.reason is Reason.INVALID_ARGUMENT


@given(st.integers(1, 10_000), st.integers(1, 200))
def test_samples_are_spread_evenly(total: int, count: int) -> None:
    rows = spread(total, count)
    assert len(set(rows)) == len(rows) == min(total, count)
    assert rows[0] == 0
    assert rows[-1] < total


def test_a_replay_asks_the_chosen_rows_in_a_job_of_their_own(service: Service) -> None:
    with Client(service.address, service.key) as client:
        job = client.submit([f"p{number}" for number in range(30)], model=service.model, sampling={"temperature": 0})
        job.wait(60)
        found = job.replay([20, 3, 3], timeout=60)
        again = client.job(found.job).get()
        assert (again.replay_of, again.retry_of, again.row_counts.total) == (job.name, "", 2)
        assert again.dataset == f"{job.get().dataset}--replay"
        assert [result.custom_id for result in client.job(found.job).results()] == ["row-4", "row-21"]
        assert [verdict.row_index for verdict in found.rows] == [3, 20]
        # The fake worker stores no engine record, so its answers cannot be trusted.
        assert {verdict.verdict for verdict in found.rows} == {Verdict.NOT_COMPARABLE}
        with pytest.raises(TidemillError) as refused:
            job.replay([30])
        assert refused.value.reason is Reason.OFFSET_OUT_OF_RANGE
        with pytest.raises(TidemillError) as refused:
            job.replay([])
        assert refused.value.reason is Reason.INVALID_ARGUMENT

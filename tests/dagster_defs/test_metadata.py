"""What the UI shows of a job."""

from datetime import timedelta

import dagster as dg

from dagster_defs.lib.metadata import input_metadata, output_metadata
from tests.dagster_defs.fakes import T0, make_job, make_samples
from tidemill.v1 import job_pb2, row_pb2

TEMPLATE = "http://traces/{trace_id}"


def test_output_tells_who_answered_how_much_and_when() -> None:
    job = make_job()
    shown = output_metadata(job, make_samples(), TEMPLATE)
    assert shown["job"] == job.name
    assert shown["model"] == "tiny"
    assert shown["model_digest"] == job.model_digest
    assert shown["engine"] == "vllm 0.32.0 (cpu)"
    assert (shown["dagster/partition_row_count"], shown["rows_succeeded"], shown["rows_failed"]) == (4, 4, 0)
    assert (shown["prompt_tokens"], shown["output_tokens"], shown["cached_tokens"]) == (40, 100, 8)
    assert shown["trace"] == dg.MetadataValue.url(f"http://traces/{job.trace_id}")
    assert shown["trace_id"] == job.trace_id
    assert shown["deadline_met"] is True
    assert shown["finished"] == dg.MetadataValue.timestamp(T0 + timedelta(minutes=3))
    assert shown["run_seconds"] == 120
    assert shown["output_tokens_per_second"] == 0.8
    assert shown["dagster/uri"] == "file:///store/jobs/acme/x/output/manifest.json"
    assert "rows_cancelled" not in shown


def test_late_job_missed_its_deadline() -> None:
    job = make_job()
    job.end_time.FromDatetime(T0 + timedelta(minutes=61))
    assert output_metadata(job, [], "")["deadline_met"] is False


def test_job_that_never_started_has_no_rates() -> None:
    job = make_job(state=job_pb2.JOB_STATE_CANCELLED)
    job.ClearField("start_time")
    shown = output_metadata(job, [], "")
    assert "run_seconds" not in shown
    assert "started" not in shown
    assert shown["rows_cancelled"] == 3


def test_failed_job_says_why() -> None:
    job = make_job(state=job_pb2.JOB_STATE_FAILED)
    job.error.message = "the model could not be loaded"
    assert output_metadata(job, [], "")["error"] == "the model could not be loaded"


def test_samples_are_a_table_of_answers_and_errors() -> None:
    failed = row_pb2.RowResult(
        custom_id="bad", status=row_pb2.ROW_STATUS_FAILED, error_code="PROMPT_TOO_LONG", error_message="9 of 8 tokens"
    )
    long = row_pb2.RowResult(custom_id="long", status=row_pb2.ROW_STATUS_SUCCEEDED, text="x" * 1000)
    table = output_metadata(make_job(), [*make_samples(1), failed, long], "")["sample_results"]
    first, second, third = (record.data for record in table.records)
    assert (first["custom_id"], first["status"], first["answer"]) == ("row-0", "SUCCEEDED", "An answer to question 0")
    assert second["answer"] == "PROMPT_TOO_LONG: 9 of 8 tokens"
    assert str(third["answer"]).endswith("(1000 characters)")
    assert len(str(third["answer"])) < 450


def test_samples_of_other_kinds_are_told_in_a_line() -> None:
    good = row_pb2.ROW_STATUS_SUCCEEDED
    rows = [
        row_pb2.RowResult(status=good, embedding=[0.5] * 16),
        row_pb2.RowResult(status=good, classes=[row_pb2.ClassScore(label="spam", probability=0.75)]),
        row_pb2.RowResult(status=good, score=0.0),
    ]
    table = output_metadata(make_job(), rows, "")["sample_results"]
    answers = [record.data["answer"] for record in table.records]
    assert answers == [f"vector: {', '.join(['0.5'] * 8)}, ...", "spam (0.75)", "score 0"]


def test_input_tells_its_job_and_deadline() -> None:
    job = make_job(labels={"team": "search"})
    shown = input_metadata(job, TEMPLATE)
    assert shown["dagster/partition_row_count"] == 4
    assert shown["input_data_version"] == job.input_data_version
    assert shown["labels"].data == {"team": "search"}
    assert shown["deadline"] == dg.MetadataValue.timestamp(T0 + timedelta(minutes=60))

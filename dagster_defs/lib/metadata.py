"""What an event shows in Dagster's UI about its job."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from google.protobuf.timestamp_pb2 import Timestamp

from dagster_defs.lib.tracing import trace_url
from dagster_defs.lib.versions import state_name
from tidemill.v1 import job_pb2, row_pb2

Metadata = dict[str, Any]

# Longest answer shown of a sample row, in characters.
_ANSWER_CHARACTERS = 400

_SAMPLE_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("custom_id", "string", description="The caller's key of the row."),
        dg.TableColumn("status", "string", description="How the row ended."),
        dg.TableColumn("answer", "string", description="The model's text, or why there is none."),
        dg.TableColumn("finish_reason", "string", description="Why generation ended."),
        dg.TableColumn("output_tokens", "int", description="Tokens generated."),
    ]
)


def input_metadata(job: job_pb2.Job, trace_template: str) -> Metadata:
    """Metadata of the job's input."""
    return {
        **_identity(job, trace_template),
        "dagster/partition_row_count": job.row_counts.total,
        "input_data_version": job.input_data_version,
        **_timestamps({"accepted": _time(job, "seal_time"), "deadline": _time(job, "complete_by_time")}),
    }


def output_metadata(job: job_pb2.Job, samples: Iterable[row_pb2.RowResult], trace_template: str) -> Metadata:
    """Metadata of the job's output, whole or partial."""
    return {
        **_identity(job, trace_template),
        "state": state_name(job),
        "model_digest": job.model_digest,
        "engine": job.engine_build,
        **_rows(job.row_counts),
        "prompt_tokens": job.usage.prompt_tokens,
        "output_tokens": job.usage.output_tokens,
        "cached_tokens": job.usage.cached_tokens,
        **_times(job),
        **_error(job),
        "input_data_version": job.input_data_version,
        "output_data_version": job.output_data_version,
        "dagster/uri": job.output_manifest_uri,
        "sample_results": sample_table(samples),
    }


def sample_table(samples: Iterable[row_pb2.RowResult]) -> dg.TableMetadataValue:
    """A few rows as the UI's table."""
    return dg.MetadataValue.table([_sample(row) for row in samples], _SAMPLE_SCHEMA)


def _sample(row: row_pb2.RowResult) -> dg.TableRecord:
    succeeded = row.status == row_pb2.ROW_STATUS_SUCCEEDED
    return dg.TableRecord(
        {
            "custom_id": row.custom_id,
            "status": row_pb2.RowStatus.Name(row.status).removeprefix("ROW_STATUS_"),
            "answer": _shortened(_answer(row) if succeeded else f"{row.error_code}: {row.error_message}"),
            "finish_reason": row.finish_reason,
            "output_tokens": row.output_tokens,
        }
    )


def _answer(row: row_pb2.RowResult) -> str:
    """The answer in a line, whatever its kind."""
    if row.embedding:
        return f"vector: {', '.join(f'{value:.4g}' for value in row.embedding[:8])}, ..."
    if row.classes:
        return f"{row.classes[0].label} ({row.classes[0].probability:.3g})"
    return f"score {row.score:.4g}" if row.HasField("score") else row.text


def _shortened(text: str) -> str:
    if len(text) <= _ANSWER_CHARACTERS:
        return text
    return f"{text[:_ANSWER_CHARACTERS]}… ({len(text)} characters)"


def _identity(job: job_pb2.Job, trace_template: str) -> Metadata:
    url = trace_url(trace_template, job.trace_id)
    return {
        "job": job.name,
        "model": job.model,
        **({"trace": dg.MetadataValue.url(url)} if url else {}),
        **({"trace_id": job.trace_id} if job.trace_id else {}),
        **({"labels": dg.MetadataValue.json(dict(job.labels))} if job.labels else {}),
        **({"origin_run": dg.MetadataValue.dagster_run(job.origin_run_id)} if job.origin_run_id else {}),
    }


def _rows(counts: job_pb2.RowCounts) -> Metadata:
    rows = {"succeeded": counts.succeeded, "failed": counts.failed}
    given_up = {"cancelled": counts.cancelled, "expired": counts.expired}
    return {
        "dagster/partition_row_count": counts.total,
        **{f"rows_{outcome}": count for outcome, count in rows.items()},
        **{f"rows_{outcome}": count for outcome, count in given_up.items() if count},
    }


def _times(job: job_pb2.Job) -> Metadata:
    sealed, started = _time(job, "seal_time"), _time(job, "start_time")
    finished, deadline = _time(job, "end_time"), _time(job, "complete_by_time")
    times = _timestamps({"accepted": sealed, "started": started, "finished": finished, "deadline": deadline})
    if finished and deadline:
        times["deadline_met"] = finished <= deadline
    if finished and started and (seconds := (finished - started).total_seconds()) > 0:
        times["run_seconds"] = round(seconds, 3)
        times["output_tokens_per_second"] = round(job.usage.output_tokens / seconds, 1)
        times["rows_per_second"] = round((job.row_counts.succeeded + job.row_counts.failed) / seconds, 2)
    return times


def _error(job: job_pb2.Job) -> Metadata:
    return {"error": job.error.message} if job.HasField("error") else {}


def _time(job: job_pb2.Job, field: str) -> datetime | None:
    stamp: Timestamp = getattr(job, field)
    return stamp.ToDatetime(tzinfo=UTC) if job.HasField(field) else None  # pyright: ignore[reportArgumentType]


def _timestamps(times: Mapping[str, datetime | None]) -> Metadata:
    return {name: dg.MetadataValue.timestamp(time) for name, time in times.items() if time}

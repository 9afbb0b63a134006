"""A batch typed into Dagster, as messages of `SubmitJob`."""

from collections.abc import Iterator
from hashlib import sha256

import dagster as dg
from google.protobuf import duration_pb2
from pydantic import Field

from tidemill.v1 import job_pb2, job_service_pb2, row_pb2

_ROWS_A_MESSAGE = 256


class Batch(dg.Config):
    """What to ask, and of which model."""

    model: str = Field(description="Id of the model as the gateway lists it, for instance `tiny`.")
    prompts: list[str] = Field(
        description="One question a row; each is sent as a chat of one user message.", min_length=1
    )
    max_tokens: int = Field(default=256, ge=1, description="Most tokens to generate a row.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 takes the likeliest token.")
    completion_window_minutes: int = Field(default=60, ge=1, le=43_200, description="When the answers are needed.")


def request_id(root_run_id: str, asset: str, partition: str) -> str:
    """The same for every retry of a run, so that a retry finds the first try's job and asks nothing twice."""
    return sha256("\0".join((root_run_id, asset, partition)).encode()).hexdigest()


def submit_messages(
    batch: Batch, dataset: str, run_id: str, idempotency_key: str
) -> Iterator[job_service_pb2.SubmitJobRequest]:
    """The job, then its rows."""
    job = job_pb2.Job(
        model=batch.model,
        dataset=dataset,
        origin_run_id=run_id,
        sampling=row_pb2.SamplingParams(temperature=batch.temperature, max_tokens=batch.max_tokens),
        completion_window=duration_pb2.Duration(seconds=60 * batch.completion_window_minutes),
    )
    create = job_service_pb2.CreateJobRequest(job=job, request_id=idempotency_key)
    yield job_service_pb2.SubmitJobRequest(create=create)
    rows = [_row(index, prompt) for index, prompt in enumerate(batch.prompts)]
    for start in range(0, len(rows), _ROWS_A_MESSAGE):
        yield job_service_pb2.SubmitJobRequest(rows=rows[start : start + _ROWS_A_MESSAGE])


def _row(index: int, prompt: str) -> row_pb2.Row:
    chat = row_pb2.ChatInput(messages=[row_pb2.ChatMessage(role="user", content=prompt)])
    return row_pb2.Row(custom_id=f"row-{index}", chat=chat)

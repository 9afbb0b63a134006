"""A gateway with a feed that tests write by hand, on a real port."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, cast

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status as codec

from tidemill.errors import Reason, TidemillError
from tidemill.names import new_job_id
from tidemill.status import rpc_status
from tidemill.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc, row_pb2

API_KEY = "tm_fake_key"
LEDGER = "ledger-one"
T0 = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

ACCEPTED = job_service_pb2.COMPLETION_KIND_ACCEPTED
FINISHED = job_service_pb2.COMPLETION_KIND_FINISHED


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def make_job(
    rows: str = "rows", *, state: job_pb2.JobState.ValueType = job_pb2.JOB_STATE_SUCCEEDED, **fields: Any
) -> job_pb2.Job:
    """A finished job of four rows whose input content is named by `rows`."""
    succeeded = 4 if state == job_pb2.JOB_STATE_SUCCEEDED else 1
    job = job_pb2.Job(
        name=f"tenants/acme/jobs/{new_job_id()}",
        model="tiny",
        dataset="reviews",
        state=state,
        row_counts=job_pb2.RowCounts(total=4, succeeded=succeeded, cancelled=4 - succeeded),
        usage=job_pb2.TokenUsage(prompt_tokens=40, output_tokens=100, cached_tokens=8),
        input_data_version=digest(rows),
        output_data_version=digest("answers to " + rows),
        output_manifest_uri="file:///store/jobs/acme/x/output/manifest.json",
        model_digest=digest("weights"),
        engine_build="vllm 0.32.0 (cpu)",
        trace_id=digest(rows)[:32],
    )
    for name, minutes in {"seal_time": 0, "start_time": 1, "end_time": 3, "complete_by_time": 60}.items():
        getattr(job, name).FromDatetime(T0 + timedelta(minutes=minutes))
    job.MergeFrom(job_pb2.Job(**fields))
    return job


def make_samples(count: int = 2) -> list[row_pb2.RowResult]:
    return [
        row_pb2.RowResult(
            row_index=index,
            custom_id=f"row-{index}",
            status=row_pb2.ROW_STATUS_SUCCEEDED,
            text=f"An answer to question {index}",
            finish_reason="stop",
            prompt_tokens=10,
            output_tokens=25,
        )
        for index in range(count)
    ]


@dataclass
class FakeFeed:
    """The completion feed of one ledger; `end` is where it ends when nothing of this tenant is left."""

    ledger_uid: str = LEDGER
    end: int = 0
    entries: list[job_service_pb2.Completion] = field(default_factory=list[job_service_pb2.Completion])

    def accept(self, job: job_pb2.Job) -> job_pb2.Job:
        self._append(ACCEPTED, job)
        return job

    def finish(self, job: job_pb2.Job) -> job_pb2.Job:
        self._append(FINISHED, job)
        return job

    def run(self, job: job_pb2.Job) -> job_pb2.Job:
        """Accept and finish at once."""
        return self.finish(self.accept(job))

    def after(self, sequence: int, limit: int) -> job_service_pb2.ListCompletionsResponse:
        slice_ = [entry for entry in self.entries if entry.sequence > sequence][:limit]
        return job_service_pb2.ListCompletionsResponse(
            completions=slice_,
            next_sequence=slice_[-1].sequence if slice_ else max(sequence, self.end),
            ledger_uid=self.ledger_uid,
        )

    def _append(self, kind: job_service_pb2.CompletionKind.ValueType, job: job_pb2.Job) -> None:
        # The real feed's sequences have gaps as well: they are positions in the ledger.
        sequence = self.end + 3 * len(self.entries) + 2
        entry = job_service_pb2.Completion(sequence=sequence, kind=kind, job=job, dataset=job.dataset)
        entry.time.CopyFrom(job.end_time if kind == FINISHED else job.seal_time)
        if kind == FINISHED:
            entry.sample_results.extend(make_samples())
        self.entries.append(entry)


# The generated base is abstract; Dagster makes two of its calls.
class FakeGateway(cast("Any", job_service_pb2_grpc).JobServiceServicer):
    """Serves a `FakeFeed`, checks keys and keeps what is submitted."""

    def __init__(self, feed: FakeFeed) -> None:
        self.feed = feed
        self.submitted: dict[str, tuple[job_pb2.Job, list[row_pb2.Row]]] = {}
        self.largest_slice = 500

    def ListCompletions(self, request: Any, context: Any) -> job_service_pb2.ListCompletionsResponse:  # noqa: N802
        self._check_key(context)
        if request.limit > self.largest_slice:
            _abort(context, rpc_status(TidemillError(Reason.OVERLOADED, "the answer is too long")))
        return self.feed.after(request.after_sequence, request.limit)

    def SubmitJob(self, messages: Iterator[Any], context: Any) -> job_pb2.Job:  # noqa: N802
        self._check_key(context)
        create = next(messages).create
        rows = [row for message in messages for row in message.rows]
        if create.request_id not in self.submitted:
            job = job_pb2.Job()
            job.CopyFrom(create.job)
            job.name = f"tenants/acme/jobs/{new_job_id()}"
            job.row_counts.total = len(rows)
            self.submitted[create.request_id] = (job, rows)
        return self.submitted[create.request_id][0]

    def _check_key(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        if metadata.get("authorization") != f"Bearer {API_KEY}":
            _abort(context, rpc_status(TidemillError(Reason.API_KEY_INVALID, "the API key is not known")))


def _abort(context: Any, status: status_pb2.Status) -> None:
    context.abort_with_status(codec.to_status(status))


@contextmanager
def serving(gateway: FakeGateway, port: int = 0) -> Generator[str]:
    """Serve `gateway` on loopback and give its address."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    job_service_pb2_grpc.add_JobServiceServicer_to_server(gateway, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(None).wait()

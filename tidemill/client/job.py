"""A handle on one job: wait for it, follow it, read its answers, change it, end it, ask about it."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Unpack

from google.protobuf import field_mask_pb2

from tidemill.client.terms import Deadline, Terms, set_deadline, set_terms, window_of
from tidemill.client.transport import CALL_SECONDS, Transport
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, row_pb2

RETRY_SECONDS = 600.0
Order = Literal["input", "completion"]

_TERMINAL = frozenset(
    {
        job_pb2.JOB_STATE_SUCCEEDED,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_CANCELLED,
        job_pb2.JOB_STATE_EXPIRED,
    }
)
_ORDERS = {
    "input": job_service_pb2.RESULT_ORDER_INPUT,
    "completion": job_service_pb2.RESULT_ORDER_COMPLETION,
}


def is_terminal(job: job_pb2.Job) -> bool:
    """Whether the job's state will never change again."""
    return job.state in _TERMINAL


def state_name(job: job_pb2.Job) -> str:
    """The job's state as people write it: `RUNNING`."""
    return job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")


class JobHandle:
    """One job by its name, `tenants/{tenant}/jobs/{ULID}`. All methods may raise TidemillError."""

    def __init__(self, transport: Transport, name: str, *, trace: str = "") -> None:
        self._transport = transport
        self.trace = trace
        self.name = name

    def __repr__(self) -> str:
        return f"JobHandle({self.name!r})"

    def get(self) -> job_pb2.Job:
        """The job as it stands."""
        request = job_service_pb2.GetJobRequest(name=self.name)
        return self._transport.call(self._transport.jobs.GetJob, request, trace=self.trace)

    def wait(self, timeout: float | None = None) -> job_pb2.Job:
        """The job once it is terminal; DEADLINE_EXCEEDED after `timeout` seconds. The job itself goes on then."""
        *_, last = self.watch(timeout=timeout)
        return last

    def watch(self, after_revision: int = 0, timeout: float | None = None) -> Iterator[job_pb2.Job]:
        """Snapshots of the job as it changes, to the terminal one; survives a restart of the service."""
        end = None if timeout is None else time.monotonic() + timeout
        revision = after_revision

        def start() -> Any:
            request = job_service_pb2.WatchJobRequest(name=self.name, after_revision=revision)
            metadata = self._transport.metadata(self.trace)
            return self._transport.jobs.WatchJob(request, timeout=self._remaining(end), metadata=metadata)

        response: job_service_pb2.WatchJobResponse
        for response in self._transport.messages(start, endless=True):
            if response.HasField("job"):
                revision = response.revision
                yield response.job
                if is_terminal(response.job):
                    return

    def _remaining(self, end: float | None) -> float | None:
        if end is None:
            return None
        remaining = end - time.monotonic()
        if remaining <= 0:
            raise TidemillError(Reason.DEADLINE_EXCEEDED, f"{self.name} is not finished yet; it goes on")
        return remaining

    def results(self, order: Order = "input", start: int = 0, *, follow: bool = True) -> Iterator[row_pb2.RowResult]:
        """The answers, from offset `start` on, as `order` has them; survives a restart of the service.

        With `follow` it waits for rows that are not done and ends when the job has; without, it gives what there is.
        """
        if order not in _ORDERS:
            raise TidemillError(Reason.INVALID_ARGUMENT, f"order must be 'input' or 'completion', not {order!r}")
        offset = start

        def open_at_offset() -> Any:
            request = job_service_pb2.ReadResultsRequest(
                name=self.name, start_offset=offset, order=_ORDERS[order], follow=follow
            )
            return self._transport.jobs.ReadResults(request, metadata=self._transport.metadata(self.trace))

        response: job_service_pb2.ReadResultsResponse
        for response in self._transport.messages(open_at_offset, endless=follow):
            # The frame counts as read before its rows are handed out, so a resume never repeats one of them.
            offset = response.next_offset
            yield from response.results
            if response.end:
                return

    def cancel(self) -> job_pb2.Job:
        """Stop the job and keep its finished rows. A finished job is JOB_TERMINAL."""
        request = job_service_pb2.CancelJobRequest(name=self.name)
        return self._transport.call(self._transport.jobs.CancelJob, request, trace=self.trace)

    def pause(self) -> job_pb2.Job:
        """Give the job's rows no more to workers until it is resumed. Repeating it is fine."""
        return self._call(self._transport.jobs.PauseJob, job_service_pb2.PauseJobRequest(name=self.name))

    def resume(self) -> job_pb2.Job:
        """Let the paused job go on. Repeating it is fine."""
        return self._call(self._transport.jobs.ResumeJob, job_service_pb2.ResumeJobRequest(name=self.name))

    def update(self, *, deadline: Deadline | None = None, **terms: Unpack[Terms]) -> job_pb2.Job:
        """Change what is given of a job that has not ended; a deadline counts from now, unless it is a datetime."""
        job = job_pb2.Job(name=self.name)
        paths = set_terms(job, terms)
        if deadline is not None:
            paths.append(set_deadline(job, deadline))
        request = job_service_pb2.UpdateJobRequest(job=job, update_mask=field_mask_pb2.FieldMask(paths=paths))
        return self._call(self._transport.jobs.UpdateJob, request)

    def delete(self) -> datetime:
        """Hide the finished job at once; returns when its data is removed for good. JOB_NOT_TERMINAL before its end."""
        response = self._call(self._transport.jobs.DeleteJob, job_service_pb2.DeleteJobRequest(name=self.name))
        return response.purge_time.ToDatetime(UTC)

    def retry_failed_rows(
        self, *, deadline: str | float | timedelta | None = None, request_id: str = ""
    ) -> "JobHandle":
        """Ask the failed rows of the finished job again, in a job of their own with the same `custom_id`s.

        NO_FAILED_ROWS when there are none. The same `request_id` returns the same job.
        """
        request = job_service_pb2.RetryFailedRowsRequest(name=self.name, request_id=request_id or uuid.uuid4().hex)
        if deadline is not None:
            request.completion_window.CopyFrom(window_of(deadline))
        try:
            job = self._call(self._transport.jobs.RetryFailedRows, request, timeout=RETRY_SECONDS)
        except TidemillError as exc:
            # Nobody knows the id that was made up here, so nobody could go on with the job.
            if not request_id and (left := exc.metadata.get("unsealed_job")):
                JobHandle(self._transport, left, trace=self.trace).cancel()
            raise
        return JobHandle(self._transport, job.name, trace=self.trace)

    def estimate(self) -> job_service_pb2.EstimateJobResponse:
        """What the rest of the job costs and when it ends."""
        job = job_pb2.Job(name=self.name)
        return self._call(self._transport.jobs.EstimateJob, job_service_pb2.EstimateJobRequest(job=job))

    def explain(self) -> job_service_pb2.ExplainJobResponse:
        """What the job waits for, and what would change it."""
        return self._call(self._transport.jobs.ExplainJob, job_service_pb2.ExplainJobRequest(name=self.name))

    def _call(self, method: Any, request: Any, timeout: float = CALL_SECONDS) -> Any:
        return self._transport.call(method, request, trace=self.trace, timeout=timeout)

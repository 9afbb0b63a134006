"""A handle on one job: wait for it, follow it, read its answers, cancel it."""

import time
from collections.abc import Iterator
from typing import Any, Literal

from tidemill.client.transport import Transport
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, row_pb2

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

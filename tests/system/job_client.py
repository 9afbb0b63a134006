"""A client made of the generated stubs alone, that records what it was told."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from tidemill.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc, provenance_pb2, row_pb2

TERMINAL = frozenset(
    {
        job_pb2.JOB_STATE_SUCCEEDED,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_CANCELLED,
        job_pb2.JOB_STATE_EXPIRED,
    }
)
FRAME_ROWS = 100


class JobClient:
    """Calls of `JobService` with a key."""

    def __init__(self, address: str, key: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.stub: Any = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.metadata = (("authorization", f"Bearer {key}"),)

    def submit(self, job: job_pb2.Job, rows: Sequence[row_pb2.Row]) -> job_pb2.Job:
        """Create, append and seal in one call."""
        return self.stub.SubmitJob(self._messages(job, rows), metadata=self.metadata, timeout=120)

    @staticmethod
    def _messages(job: job_pb2.Job, rows: Sequence[row_pb2.Row]) -> Iterator[job_service_pb2.SubmitJobRequest]:
        yield job_service_pb2.SubmitJobRequest(create=job_service_pb2.CreateJobRequest(job=job))
        for start in range(0, len(rows), FRAME_ROWS):
            yield job_service_pb2.SubmitJobRequest(rows=rows[start : start + FRAME_ROWS])

    def get(self, name: str) -> job_pb2.Job:
        return self.stub.GetJob(job_service_pb2.GetJobRequest(name=name), metadata=self.metadata, timeout=30)

    def provenance(self, name: str, row: int) -> provenance_pb2.RowProvenance:
        request = provenance_pb2.GetRowProvenanceRequest(name=name, row_index=row)
        return self.stub.GetRowProvenance(request, metadata=self.metadata, timeout=30)

    def cancel(self, name: str) -> job_pb2.Job:
        return self.stub.CancelJob(job_service_pb2.CancelJobRequest(name=name), metadata=self.metadata, timeout=30)

    def watch_until(self, name: str, condition: Callable[[job_pb2.Job], bool], seconds: float) -> list[job_pb2.Job]:
        """Snapshots up to the first that meets `condition`; reconnects when the service goes away meanwhile."""
        seen: list[job_pb2.Job] = []
        for attempt in itertools.count(1):
            request = job_service_pb2.WatchJobRequest(name=name, after_revision=seen[-1].revision if seen else 0)
            try:
                for update in self.stub.WatchJob(request, metadata=self.metadata, timeout=seconds, wait_for_ready=True):
                    if update.HasField("job"):
                        seen.append(update.job)
                        if condition(update.job):
                            return seen
            except grpc.RpcError as exc:
                if exc.code() is not grpc.StatusCode.UNAVAILABLE or attempt > 100:
                    raise
                continue
            raise AssertionError(f"the watch ended at {seen[-1].state if seen else None} before its condition held")
        raise AssertionError("unreachable")

    def wait(self, name: str, seconds: float = 300) -> list[job_pb2.Job]:
        """Snapshots up to the terminal one."""
        return self.watch_until(name, lambda job: job.state in TERMINAL, seconds)

    def results(self, name: str, order: Any = job_service_pb2.RESULT_ORDER_INPUT) -> list[row_pb2.RowResult]:
        """All results, checking that frames join without a gap."""
        request = job_service_pb2.ReadResultsRequest(name=name, order=order, follow=True)
        found: list[row_pb2.RowResult] = []
        ended = False
        for frame in self.stub.ReadResults(request, metadata=self.metadata, timeout=120):
            assert not ended, "a frame came after the end"
            assert frame.offset == len(found)
            found.extend(frame.results)
            assert frame.next_offset == len(found)
            ended = frame.end
        assert ended, "the stream closed without an end"
        return found

    def close(self) -> None:
        self.channel.close()


def check_history(snapshots: Sequence[job_pb2.Job]) -> None:
    """What must hold over the snapshots that one client saw: I4, I5, and progress that never goes back."""
    for job in snapshots:
        counts = job.row_counts
        parts = (counts.succeeded, counts.failed, counts.cancelled, counts.expired, counts.pending, counts.leased)
        assert counts.total == sum(parts), f"I5 broken: {counts}"
    for before, after in itertools.pairwise(snapshots):
        # A second watch starts with the state that the first one ended at, and a phase may change alone.
        assert after.revision >= before.revision
        assert after.revision > before.revision or after.row_counts == before.row_counts
        assert after.row_counts.succeeded >= before.row_counts.succeeded
        assert before.state not in TERMINAL, "I4 broken: the job changed after its end"

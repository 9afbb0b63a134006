"""Server streams as values that know where they are, so that both transports can open them again there."""

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, Protocol, TypeVar

from google.protobuf import field_mask_pb2

from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, row_pb2

pb = job_service_pb2
Order = Literal["input", "completion"]
Item_co = TypeVar("Item_co", covariant=True)

_TERMINAL = frozenset(
    {
        job_pb2.JOB_STATE_SUCCEEDED,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_CANCELLED,
        job_pb2.JOB_STATE_EXPIRED,
    }
)
# So that no fields at all is not taken for all of them.
_ALWAYS = ("row_index", "custom_id", "status")
_ORDERS = {"input": pb.RESULT_ORDER_INPUT, "completion": pb.RESULT_ORDER_COMPLETION}


def is_terminal(job: job_pb2.Job) -> bool:
    """Whether the job's state will never change again."""
    return job.state in _TERMINAL


def state_name(job: job_pb2.Job) -> str:
    """The job's state as people write it: `RUNNING`."""
    return job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")


class Cursor(Protocol[Item_co]):
    """A server stream of the `jobs` stub that can be opened again after the last message taken.

    Attributes:
        endless: only its consumer ends it; if the server does, it is opened again.
        done: nothing more comes.
    """

    method: str
    endless: bool
    done: bool

    def request(self) -> Any:
        """What opens the stream here."""
        ...

    def timeout(self) -> float | None:
        """Seconds that it may stay open; raises when they are over."""
        ...

    def take(self, response: Any) -> Iterable[Item_co]:
        """Go on behind `response` and return what is in it. A resume never repeats any of it."""
        ...


class WatchCursor:
    """Snapshots of a job above a revision, to the terminal one; `timeout` seconds in all."""

    method, endless = "WatchJob", True

    def __init__(self, name: str, after_revision: int, timeout: float | None) -> None:
        self.done = False
        self._name, self._revision = name, after_revision
        self._end = None if timeout is None else time.monotonic() + timeout

    def request(self) -> pb.WatchJobRequest:
        return pb.WatchJobRequest(name=self._name, after_revision=self._revision)

    def timeout(self) -> float | None:
        if self._end is None:
            return None
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise TidemillError(Reason.DEADLINE_EXCEEDED, f"{self._name} is not finished yet; it goes on")
        return remaining

    def take(self, response: pb.WatchJobResponse) -> Sequence[job_pb2.Job]:
        if not response.HasField("job"):
            return ()
        self._revision, self.done = response.revision, is_terminal(response.job)
        return (response.job,)


class ResultsCursor:
    """Results of a job from an offset on."""

    method = "ReadResults"

    def __init__(
        self, name: str, order: Order, start: int, *, follow: bool, fields: Collection[str] | None = None
    ) -> None:
        if order not in _ORDERS:
            raise TidemillError(Reason.INVALID_ARGUMENT, f"order must be 'input' or 'completion', not {order!r}")
        self.endless, self.done = follow, False
        if isinstance(fields, str):
            raise TidemillError(Reason.INVALID_ARGUMENT, f"fields is a list of names, such as [{fields!r}]")
        self._name, self._order, self._offset = name, order, start
        self._fields = None if fields is None else field_mask_pb2.FieldMask(paths=[*_ALWAYS, *fields])

    def request(self) -> pb.ReadResultsRequest:
        return pb.ReadResultsRequest(
            name=self._name,
            start_offset=self._offset,
            order=_ORDERS[self._order],
            follow=self.endless,
            read_mask=self._fields,
        )

    def timeout(self) -> float | None:
        return None

    def take(self, response: pb.ReadResultsResponse) -> Sequence[row_pb2.RowResult]:
        self._offset, self.done = response.next_offset, response.end
        return response.results

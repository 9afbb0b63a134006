"""How a lease is given back, by what went wrong under it."""

from dataclasses import dataclass

from services.inference.blame import EngineFailedError, NodeLostError
from services.inference.chunk_task import IncompleteError
from services.inference.held import HeldLease
from services.inference.link import LeaseVoidError, is_transient
from services.inference.resident import EngineUnavailableError, WeightsChangedError
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2 as pb

__all__ = ["IN_ORDER", "Release", "release_for"]

_WEIGHTS_CHANGED = "MODEL_WEIGHTS_CHANGED"
_MESSAGE_CHARACTERS = 1000


@dataclass(frozen=True)
class Release:
    """What the scheduler is told: the fields of `ReleaseLeaseRequest`."""

    failed: bool
    message: str
    fatal_reason: str = ""
    engine_died: bool = False

    def request(self, held: HeldLease) -> pb.ReleaseLeaseRequest:
        """The call."""
        return pb.ReleaseLeaseRequest(
            lease=held.key,
            failed=self.failed,
            message=self.message[:_MESSAGE_CHARACTERS],
            fatal_reason=self.fatal_reason,
            engine_died=self.engine_died,
        )


IN_ORDER = Release(False, "the worker stops")
# The scheduler need not wait for the end of its grace: what had finished is committed.
_HALTED = Release(False, "the job is being stopped")


def release_for(held: HeldLease, exc: Exception) -> Release | None:
    """How the lease is given back after this failure; None when the scheduler took it back already."""
    if isinstance(exc, LeaseVoidError):
        return _ended(held, exc)
    if isinstance(exc, WeightsChangedError):
        return Release(True, str(exc), _WEIGHTS_CHANGED)
    if isinstance(exc, TidemillError):
        if exc.reason is Reason.STORE_FAILED:
            return Release(False, str(exc))  # not the chunk's fault, and no attempt at it
        fatal = exc.reason is Reason.DATA_CORRUPT and not is_transient(exc)
        return Release(True, str(exc), exc.reason.value if fatal else "")
    if isinstance(exc, EngineUnavailableError | EngineFailedError | IncompleteError):
        # A node that dies is nobody's fault. Nor is that engines end under their rows while the worker stops.
        failed = not held.stopping.is_set() and not isinstance(exc, NodeLostError)
        died = isinstance(exc, EngineFailedError) and exc.died
        return Release(failed, str(exc), engine_died=failed and died)
    return Release(True, f"{type(exc).__name__}: {exc}")


def _ended(held: HeldLease, exc: LeaseVoidError) -> Release | None:
    if held.void.is_set():
        return None
    if held.halted.is_set():
        return _HALTED
    # A call was refused as if the lease were over. If it is, so is this; if not, it need not wait until it expires.
    return IN_ORDER if held.stopping.is_set() else Release(True, str(exc))

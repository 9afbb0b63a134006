"""`apply(state, event)`: fold one ledger event into the state. Events are facts, so nothing is refused here."""

from collections.abc import Callable

from services.scheduler.core.apply_archive import job_archived, ledger_restored
from services.scheduler.core.apply_cleanup import cleanup_finished, cleanup_leased, cleanup_requeued, job_deleted
from services.scheduler.core.apply_endings import finalise_leased, finalise_requeued, job_ending, job_finished
from services.scheduler.core.apply_leases import chunk_leased, chunk_requeued, part_committed
from services.scheduler.core.apply_poison import chunk_split, row_condemned
from services.scheduler.core.apply_rows import job_created, job_sealed, segment_committed, writer_opened
from services.scheduler.core.apply_sla import job_escalated, sla_changed
from services.scheduler.core.apply_steering import job_paused, job_resumed, job_stopping, job_updated
from services.scheduler.core.models import model_changed
from services.scheduler.core.state import State
from services.scheduler.core.times import from_timestamp
from tidemill.internal.v1 import ledger_pb2

_HANDLERS: dict[str, Callable[[State, ledger_pb2.LedgerEvent], None]] = {
    "job_created": job_created,
    "writer_opened": writer_opened,
    "segment_committed": segment_committed,
    "job_sealed": job_sealed,
    "chunk_leased": chunk_leased,
    "part_committed": part_committed,
    "chunk_requeued": chunk_requeued,
    "job_ending": job_ending,
    "finalise_leased": finalise_leased,
    "finalise_requeued": finalise_requeued,
    "job_finished": job_finished,
    "sla_changed": sla_changed,
    "job_escalated": job_escalated,
    "job_paused": job_paused,
    "job_resumed": job_resumed,
    "job_updated": job_updated,
    "job_stopping": job_stopping,
    "model_changed": model_changed,
    "job_archived": job_archived,
    "ledger_restored": ledger_restored,
    "job_deleted": job_deleted,
    "cleanup_leased": cleanup_leased,
    "cleanup_requeued": cleanup_requeued,
    "cleanup_finished": cleanup_finished,
    "chunk_split": chunk_split,
    "row_condemned": row_condemned,
}


def apply(state: State, event: ledger_pb2.LedgerEvent) -> State:
    """Fold `event`, the one after `state.sequence`, into `state`, which is changed in place and returned.

    Raises:
        ValueError: the event is not the next one, or of a kind that this version does not know.
    """
    payload = event.WhichOneof("payload")
    if payload is None:
        raise ValueError(f"ledger event {event.sequence} has a payload that this version does not know")
    if event.sequence != state.sequence + 1:
        raise ValueError(f"ledger event {event.sequence} follows {state.sequence}")
    state.sequence = event.sequence
    state.pass_time(from_timestamp(event.time))
    _HANDLERS[payload](state, event)
    return state


def knows(event: ledger_pb2.LedgerEvent) -> bool:
    """Whether this version can apply events of this kind."""
    return event.WhichOneof("payload") in _HANDLERS


def job_of(event: ledger_pb2.LedgerEvent) -> str:
    """Name of the job that the event is about; empty for one that is about none."""
    payload = event.WhichOneof("payload")
    if payload == "job_created":
        return event.job_created.spec.name
    return getattr(getattr(event, payload), "job", "") if payload else ""

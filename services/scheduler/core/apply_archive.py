"""Events about the ledger's own upkeep: jobs that leave memory, and a ledger that came from a backup."""

from services.scheduler.core.state import State
from tidemill.internal.v1 import ledger_pb2


def job_archived(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The archive has the job; memory forgets it."""
    state.forget(event.job_archived.job)
    state.archivals += 1


def ledger_restored(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """Fences from here on are above all that the lost tail gave out."""
    state.fence_base = event.ledger_restored.fence_base

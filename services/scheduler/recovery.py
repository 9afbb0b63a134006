"""The state at a start: the newest snapshot that can be trusted, and the events behind it."""

import gc
from collections.abc import Generator
from contextlib import contextmanager

from services.scheduler import snapshot
from services.scheduler.core.apply import apply, knows
from services.scheduler.core.state import State
from services.scheduler.framing import DamagedError, NewerError
from services.scheduler.ledger.base import Ledger, replay
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError

log = telemetry.logger(__name__)


def recover(ledger: Ledger, epoch: int, begun: State | None = None) -> State:
    """The state after the last event; `begun` is a state up to some event, where there is one. Calls block.

    A damaged snapshot is set aside; the one before it, or all events from the first, give the same state.

    Raises:
        TidemillError: LEDGER_CORRUPT naming the record that cannot be trusted; LEDGER_UNSAFE when a newer version
            wrote something that this one does not know.
    """
    with _no_collections():
        state = begun if begun is not None and begun.sequence else newest(ledger, epoch)
        for event in replay(ledger, state.sequence):
            if not knows(event):
                raise _too_new(f"event {event.sequence} is of a kind that this version does not know")
            apply(state, event)
    return state


def newest(ledger: Ledger, epoch: int | None = None) -> State:
    """The state of the newest good snapshot; a new one where there is none. With an `epoch`, bad ones are set aside.

    Raises:
        TidemillError: LEDGER_UNSAFE as `recover`.
    """
    for sequence in ledger.snapshots():
        try:
            return snapshot.load(ledger.snapshot(sequence))
        except NewerError as exc:
            raise _too_new(f"the snapshot after event {sequence}: {exc}") from exc
        except DamagedError as exc:
            log.error("a damaged snapshot is set aside", sequence=sequence, why=str(exc))
            if epoch is not None:
                ledger.discard_snapshot(epoch, sequence, str(exc))
    return State()


def _too_new(what: str) -> TidemillError:
    return TidemillError(
        Reason.LEDGER_UNSAFE,
        f"a newer scheduler wrote to this ledger, and this version must not lead over it: {what}; start that version",
    )


@contextmanager
def _no_collections() -> Generator[None]:
    """Without the cycle collector: a replay makes much that stays and no cycles, and each pass would walk all of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
            gc.freeze()

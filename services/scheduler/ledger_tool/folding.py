"""The state that a ledger stands for, found without owning it."""

from dataclasses import dataclass

from services.scheduler import snapshot
from services.scheduler.core.apply import apply, knows
from services.scheduler.core.state import State
from services.scheduler.framing import DamagedError, NewerError
from services.scheduler.ledger_tool.source import Facts, Source, StoredEvent, all_stored
from tidemill.errors import Reason, TidemillError


@dataclass(slots=True)
class Folded:
    """The state, and the snapshots that could not be used for it."""

    state: State
    unused: list[str]


def fold(source: Source, facts: Facts) -> Folded:
    """Read the newest snapshot that is whole, and apply every event behind it.

    Raises:
        TidemillError: LEDGER_CORRUPT naming the record that is damaged, missing, or of a newer version.
    """
    folded = _from_snapshot(source)
    for stored in all_stored(source, folded.state.sequence):
        if stored.sequence > facts.last_sequence:
            break
        _apply(facts, folded.state, stored)
    if folded.state.sequence < facts.last_sequence:
        raise _corrupt(facts, f"record {folded.state.sequence + 1} is missing")
    return folded


def _from_snapshot(source: Source) -> Folded:
    unused: list[str] = []
    for sequence in source.snapshots():
        try:
            return Folded(snapshot.load(source.snapshot(sequence)), unused)
        except (DamagedError, NewerError) as exc:
            unused.append(f"snapshot {sequence}: {exc}")
    return Folded(State(), unused)


def _apply(facts: Facts, state: State, stored: StoredEvent) -> None:
    if stored.sequence != state.sequence + 1:
        raise _corrupt(facts, f"record {state.sequence + 1} is missing")
    if stored.event is None:
        raise _corrupt(facts, f"record {stored.sequence} is damaged ({stored.damage})")
    if not knows(stored.event):
        raise _corrupt(facts, f"record {stored.sequence} is of a kind that this version does not know")
    apply(state, stored.event)


def _corrupt(facts: Facts, why: str) -> TidemillError:
    return TidemillError(
        Reason.LEDGER_CORRUPT, f"{facts.address} is not whole: {why}", metadata={"ledger": facts.address}
    )

"""`inspect`: what is in a ledger, without owning it."""

from collections import Counter
from typing import Any

from google.protobuf.json_format import MessageToDict

from services.scheduler.core.apply import job_of
from services.scheduler.core.state import State
from services.scheduler.ledger_tool.folding import fold
from services.scheduler.ledger_tool.source import Facts, Source, all_stored
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2


def look(source: Source) -> dict[str, Any]:
    """Identity, range, counts and damage.

    Keys: ledger, ledger_uid, epoch, first_sequence, last_sequence, events (number by kind), snapshots, jobs (number by
    state, in memory and archived), damaged (of records and snapshots, in words), problem (why the state cannot be had).
    """
    facts = source.facts()
    kinds, damaged = _survey(source, facts)
    jobs, unused, problem = _jobs(source, facts)
    return {
        "ledger": facts.address,
        "ledger_uid": facts.ledger_uid,
        "epoch": facts.epoch,
        "first_sequence": facts.first_sequence,
        "last_sequence": facts.last_sequence,
        "events": dict(sorted(kinds.items())),
        "snapshots": source.snapshots(),
        "jobs": jobs,
        "archived": {_state_name(state): number for state, number in sorted(source.archive_counts().items())},
        "damaged": [*facts.set_aside, *damaged, *unused],
        "problem": problem,
    }


def _survey(source: Source, facts: Facts) -> tuple[Counter[str], list[str]]:
    """Events by kind, and what is wrong with records."""
    kinds: Counter[str] = Counter()
    damaged: list[str] = []
    expected = facts.first_sequence
    for stored in all_stored(source):
        if stored.sequence > expected:
            damaged.append(f"records {expected} to {stored.sequence - 1} are missing")
        expected = stored.sequence + 1
        if stored.event is None:
            damaged.append(f"record {stored.sequence}: {stored.damage}")
        else:
            kinds[stored.event.WhichOneof("payload") or "unknown"] += 1
    return kinds, damaged


def _jobs(source: Source, facts: Facts) -> tuple[dict[str, int], list[str], str]:
    try:
        folded = fold(source, facts)
    except TidemillError as error:
        return {}, [], error.message
    return _by_state(folded.state), folded.unused, ""


def _by_state(state: State) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for (_, _, job_state), number in state.counts.items():
        sums[_state_name(job_state)] += number
    return dict(sorted(sums.items()))


def _state_name(state: int) -> str:
    return job_pb2.JobState.Name(job_pb2.JobState.ValueType(state)).removeprefix("JOB_STATE_")


def events_of(source: Source, job: str) -> list[dict[str, Any]]:
    """The stored events about one job as JSON objects, in order.

    Raises:
        TidemillError: JOB_NOT_FOUND when there is none.
    """
    found = [
        MessageToDict(stored.event, preserving_proto_field_name=True)
        for stored in all_stored(source)
        if stored.event is not None and job_of(stored.event) == job
    ]
    if not found:
        raise TidemillError(
            Reason.JOB_NOT_FOUND,
            f"the ledger holds no event about {job}: it never existed, or a snapshot stands for its events",
            metadata={"job": job},
        )
    return found

"""Faults planted into the core, each of which breaks an invariant; `test_planted` shows that the random walk finds all.

A fault is a function that returns the patches to apply.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from services.scheduler import archived
from services.scheduler.core import (
    apply,
    apply_poison,
    cleanup,
    deadlines,
    eligible,
    endings,
    jobs,
    leasing,
    parts,
    poison,
    requeues,
    steering,
    views,
    writers,
)
from services.scheduler.core.fairness import Accounts
from services.scheduler.core.limits import Limits
from services.scheduler.core.records import Chunk, Job, ModelFlags, Requeue
from services.scheduler.core.state import State
from services.scheduler.ledger import MemoryLedger
from tidemill.internal.v1 import ledger_pb2

Patches = Iterable[Any]

FAULTS: dict[str, Callable[[], Patches]] = {}


def fault(plant: Callable[[], Patches]) -> Callable[[], Patches]:
    """Enter the fault in the list, under its function's name."""
    FAULTS[plant.__name__] = plant
    return plant


def after(payload: str, spoil: Callable[[State, Any], None]) -> Any:
    """Patch the fold: once an event of this kind is applied, spoil the state."""
    fold = apply._HANDLERS[payload]  # pyright: ignore[reportPrivateUsage] - the faults go below the surface

    def spoilt(state: State, event: ledger_pb2.LedgerEvent) -> None:
        fold(state, event)
        spoil(state, getattr(event, payload))

    return patch.dict(apply._HANDLERS, {payload: spoilt})  # pyright: ignore[reportPrivateUsage] - as above


def nothing(*_arguments: Any, **_named: Any) -> Any:
    """No event, no refusal."""
    return []


# I1: rows are neither lost nor duplicated nor reordered.


@fault
def a_superseded_writer_may_append() -> Patches:
    return [patch.object(writers, "_check_writer", nothing)]


@fault
def a_segment_may_leave_a_gap() -> Patches:
    return [patch.object(writers, "_check_segment", nothing)]


@fault
def a_seal_ignores_the_count() -> Patches:
    return [patch.object(jobs, "_check_count", nothing)]


@fault
def the_ledger_loses_its_last_record() -> Patches:
    def read(self: Any, after_: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        kept = self._records[:-1]
        return [ledger_pb2.LedgerEvent.FromString(record) for record in kept[after_ : after_ + limit]]

    return [patch.object(MemoryLedger, "read", read)]


@fault
def halves_lose_a_row() -> Patches:
    halves = apply_poison.halves

    def spoilt(chunk: Chunk, first_rows: int) -> tuple[Chunk, Chunk]:
        first, second = halves(chunk, first_rows)
        return first, replace(second, rows=second.rows - 1)

    return [patch.object(apply_poison, "halves", spoilt)]


# I2: one live lease a chunk, rising fences.


@fault
def fences_do_not_rise() -> Patches:
    return [patch.object(State, "fence_of", lambda _self, event: 10_000 - event.sequence)]


@fault
def a_leased_chunk_waits_as_well() -> Patches:
    def spoil(state: State, leased: ledger_pb2.ChunkLeased) -> None:
        state.waiting.setdefault(leased.job, []).append(leased.chunk_start)

    return [after("chunk_leased", spoil)]


# I3: only the current fence commits, each row once.


@fault
def a_repeated_part_is_new() -> Patches:
    return [patch.object(parts, "_committed_before", lambda *_: False)]


@fault
def every_lease_seems_live() -> Patches:
    return [patch.object(views, "is_void", lambda *_: False)]


# I4: terminal states stay.


@fault
def a_job_that_ended_can_be_cancelled() -> Patches:
    return [patch.object(Job, "open", property(lambda _self: True))]


@fault
def a_job_that_ended_can_be_paused() -> Patches:
    return [patch.object(steering, "_check_pausable", nothing)]


# I5: the counts add up.


@fault
def leased_rows_are_not_given_back() -> Patches:
    def spoil(state: State, requeued: ledger_pb2.ChunkRequeued) -> None:
        job = state.jobs[requeued.job]
        state.put(replace(job, leased_rows=job.leased_rows + 1))

    return [after("chunk_requeued", spoil)]


# I6: caps hold, counters equal a recount.


@fault
def a_returned_chunk_stays_in_flight() -> Patches:
    return [after("chunk_requeued", lambda state, event: state.in_flight.shift(state.jobs[event.job], 1))]


# I7 and I9: no idle worker while it may have a chunk; every chunk is leased in time.


@fault
def a_worker_goes_away_empty() -> Patches:
    lease_next = leasing.lease_next

    def spoilt(state: State, *arguments: Any) -> Any:
        return lease_next(state, *arguments) if state.sequence % 4 else []

    return [patch.object(leasing, "lease_next", spoilt)]


@fault
def a_returned_chunk_is_forgotten() -> Patches:
    return [patch.object(State, "put_back", nothing)]


@fault
def a_chunk_that_backs_off_never_comes_back() -> Patches:
    def pass_time(self: State, now_ns: int) -> None:
        self.time_ns = max(self.time_ns, now_ns)

    return [patch.object(State, "pass_time", pass_time)]


@fault
def a_resumed_job_stays_paused() -> Patches:
    return [after("job_resumed", lambda state, event: _pause_again(state, event.job))]


def _pause_again(state: State, name: str) -> None:
    paused = ledger_pb2.LedgerEvent(job_paused=ledger_pb2.JobPaused(job=name, reason="PAUSED_BY_OWNER"))
    apply._HANDLERS["job_paused"](state, paused)  # pyright: ignore[reportPrivateUsage] - as above


# Pause, stop, expiry.


@fault
def a_paused_job_gets_leases() -> Patches:
    def leasable(self: State, job: Job) -> bool:
        if job.seal is None or not job.open:
            return False
        return job.next_cut < job.seal.row_count or bool(self.waiting.get(job.name))

    return [patch.object(State, "_leasable", leasable)]


@fault
def a_cancel_leaves_no_grace() -> Patches:
    return [patch.object(jobs, "stop_job", lambda _state, job, outcome: endings.end_job(job, outcome))]


@fault
def the_grace_never_ends() -> Patches:
    return [patch.object(endings, "end_due_stop", nothing)]


@fault
def deadlines_are_ignored() -> Patches:
    return [patch.object(deadlines, "expire_due", nothing)]


@fault
def an_unsealed_job_lives_for_ever() -> Patches:
    return [patch.object(jobs, "expire_oldest", nothing)]


# Poison and backoff.


@fault
def one_death_alone_condemns() -> Patches:
    return [patch.object(poison, "DEATHS_ALONE", 1)]


@fault
def every_death_halves() -> Patches:
    after_death = poison.after_death

    def spoilt(job: Job, chunk: Chunk, lease: Any, limits: Limits) -> Any:
        return after_death(job, chunk, replace(lease, alone=True), limits)

    return [patch.object(requeues, "after_death", spoilt)]


@fault
def suspects_run_beside_others() -> Patches:
    return [after("chunk_requeued", _trust)]


def _trust(state: State, requeued: ledger_pb2.ChunkRequeued) -> None:
    chunks = state.chunks[requeued.job]
    chunks[requeued.chunk_start] = replace(chunks[requeued.chunk_start], suspect=False)


@fault
def a_failure_counts_as_a_death() -> Patches:
    def judged(requeue: Requeue, _chunk: Chunk, _limits: Limits) -> Requeue:
        failed = requeue.reason == ledger_pb2.REQUEUE_REASON_FAILED
        return replace(requeue, reason=ledger_pb2.REQUEUE_REASON_ENGINE_DIED) if failed else requeue

    return [patch.object(requeues, "judged", judged)]


# I8: the tenant that had least is next.


@fault
def the_tenant_that_had_most_is_next() -> Patches:
    order = Accounts.order
    return [patch.object(Accounts, "order", lambda self, model: order(self, model)[::-1])]


# I10, I11 and what comes after the end.


@fault
def the_archive_loses_a_part() -> Patches:
    take = archived.take
    return [patch.object(archived, "take", lambda state, name: replace(take(state, name), parts=[]))]


@fault
def a_drained_model_gets_leases() -> Patches:
    return [patch.object(eligible, "flags", lambda *_: ModelFlags())]


@fault
def a_job_is_purged_at_once() -> Patches:
    return [patch.object(cleanup, "DELETED_NS", 0)]


@fault
def a_former_leader_may_write() -> Patches:
    append = MemoryLedger.append

    def spoilt(self: Any, _epoch: int, expected: int, events: Any) -> int:
        return append(self, self._epoch, expected, events)

    return [patch.object(MemoryLedger, "append", spoilt)]

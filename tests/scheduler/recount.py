"""Counts everything anew from the primary records, and compares it with the indices that decisions use (I5, I6)."""

from collections import Counter
from typing import Any

from services.scheduler.core.agenda import DueTimes
from services.scheduler.core.demand import Demand
from services.scheduler.core.holdings import Holdings
from services.scheduler.core.indices import InFlight, ReadyJobs
from services.scheduler.core.limits import Limits
from services.scheduler.core.records import Job, LeaseKind, Tally
from services.scheduler.core.slack import window_ns
from services.scheduler.core.state import State
from tidemill import rowset
from tidemill.v1 import job_pb2


def check(state: State, limits: Limits | None = None) -> None:
    """Raise AssertionError when an index disagrees with a recount, or a cap is exceeded."""
    for job in state.jobs.values():
        check_job(state, job)
    check_names(state)
    check_leases(state)
    check_ready(state)
    check_claims(state)
    if limits is not None:
        check_caps(state, limits)


def check_job(state: State, job: Job) -> None:
    """One job's figures, chunks, parts and segments."""
    parts = state.parts.get(job.name, [])
    chunks = state.chunks.get(job.name, {})
    assert job.tally == sum((part.tally for part in parts), Tally())
    assert job.results == sum(part.row_count for part in parts) <= job.end
    assert [part.first_result_offset for part in parts] == running_sums(part.row_count for part in parts)
    assert job.end == sum(segment.count for segment in state.segments.get(job.name, []))
    leased = [chunk for chunk in chunks.values() if chunk.fence]
    later = {start for name, start in state.agenda.chunks.times if name == job.name}
    if job.ending is None:
        assert job.leased_rows == sum(chunk.missing for chunk in leased)
        assert {chunk.fence for chunk in leased} == state.leases_of.get(job.name, set())
        waiting = sorted(chunk.start for chunk in chunks.values() if not chunk.fence and chunk.start not in later)
        assert waiting == state.waiting.get(job.name, [])
    else:
        assert not leased
        assert job.leased_rows == 0
        assert job.name not in state.waiting
        assert not later
    missing = sum(chunk.missing for chunk in chunks.values()) + job.end - job.next_cut
    assert job.results + missing == job.end
    check_rows(state, job)
    if job.terminal:
        # Only a job that could not be closed leaves rows without a result, and it says why.
        assert job.results == job.end or (not job.output_manifest_key and job.expect_ending().reason)
        assert all(state.leases[fence].kind is LeaseKind.CLEANUP for fence in state.leases_of.get(job.name, ()))


def check_rows(state: State, job: Job) -> None:
    """No row has two results (I3)."""
    seen: set[int] = set()
    for part in state.parts.get(job.name, []):
        rows = {part.chunk_start + offset for offset in rowset.indices(part.rows)}
        assert not rows & seen
        seen |= rows
        assert max(rows) < job.end


def running_sums(values: Any) -> list[int]:
    """What stands before each value."""
    sums: list[int] = []
    total = 0
    for value in values:
        sums.append(total)
        total += value
    return sums


def check_names(state: State) -> None:
    """Indices by tenant, state and request."""
    counts: Counter[Any] = Counter()
    names: dict[Any, list[str]] = {}
    visible = [job for job in state.jobs.values() if not job.deleted]
    for job in visible:
        counts[job.tenant, job.model, job.state] += 1
        names.setdefault((job.tenant, job.state), []).append(job.name)
    assert counts == Counter(state.counts)
    assert {key: sorted(value) for key, value in names.items()} == {k: v for k, v in state.names.items() if v}
    assert state.ended == sorted((job.end_ns, job.name) for job in state.jobs.values() if job.terminal)
    assert set(state.receiving) == {job.name for job in state.jobs.values() if job.receiving}
    assert state.requests == {(job.tenant, job.spec.request_id): job.name for job in visible if job.spec.request_id}


def check_leases(state: State) -> None:
    """Live leases, and what the caps see of them."""
    fresh = InFlight()
    held: set[tuple[str, int]] = set()
    for lease in state.leases.values():
        if lease.kind is LeaseKind.CLEANUP:
            assert state.cleanups[lease.job].fence == lease.fence
            continue
        job = state.jobs[lease.job]
        if lease.kind is LeaseKind.CHUNK:
            fresh.shift(job, 1)
            assert state.chunks[job.name][lease.chunk_start].fence == lease.fence
            assert (job.name, lease.chunk_start) not in held
            held.add((job.name, lease.chunk_start))
        else:
            assert job.expect_ending().fence == lease.fence
    assert vars(fresh) == vars(state.in_flight)


def check_ready(state: State) -> None:
    """Jobs that have rows to lease, and closing tasks that wait."""
    fresh = ReadyJobs()
    for job in state.jobs.values():
        if job.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING) and job.ending is None:
            assert job.seal is not None
            uncut = job.next_cut < job.seal.row_count
            if uncut or state.waiting.get(job.name):
                # The latest start is a guess of its time; everything else about the index is recounted.
                start, window, _ = vars(state.ready)["_start_of"][job.name]
                assert window == window_ns(job)
                assert start <= job.deadline_ns
                fresh.set(job, start, window)
    assert vars(fresh) == vars(state.ready)
    check_accounts(state)
    closing = sorted(
        (job.ending.ready_at_ns, job.ending.sequence, job.name)
        for job in state.jobs.values()
        if job.ending is not None and not job.terminal and not job.ending.fence
    )
    assert closing == state.closing


def check_cleanups(state: State) -> None:
    """What is left to do about the files of terminal jobs."""
    kept: dict[str, int] = {}
    unswept: dict[str, int] = {}
    waiting: dict[str, int] = {}
    for name, cleanup in state.cleanups.items():
        assert name not in state.jobs or state.jobs[name].terminal
        if not cleanup.purge_ns:
            kept[name] = cleanup.end_ns
        if cleanup.fence:
            assert state.leases[cleanup.fence].kind is LeaseKind.CLEANUP
        elif cleanup.purge_ns:
            waiting[name] = max(cleanup.purge_ns, cleanup.ready_at_ns)
        elif not cleanup.swept and cleanup.ready_at_ns:
            waiting[name] = cleanup.ready_at_ns
        elif not cleanup.swept:
            unswept[name] = cleanup.end_ns
    same_times(state.agenda.kept, kept)
    same_times(state.agenda.unswept, unswept)
    same_times(state.agenda.cleanups, waiting)
    assert state.cleanups_leased == sum(lease.kind is LeaseKind.CLEANUP for lease in state.leases.values())
    for job in state.jobs.values():
        assert (job.name in state.cleanups) == job.terminal
        assert job.deleted == (job.terminal and state.cleanups[job.name].purge_ns > 0)


def check_agenda(state: State) -> None:
    """What becomes due by itself, and states that say so."""
    deadlines: dict[str, int] = {}
    stops: dict[str, int] = {}
    for job in state.jobs.values():
        assert (job.pause is not None) == (job.state == job_pb2.JOB_STATE_PAUSED)
        if job.stopping is not None:
            assert job.ending is None
            assert job.state == job_pb2.JOB_STATE_CANCELLING
            assert job.name in state.leases_of
            stops[job.name] = job.stopping.until_ns
        elif job.ending is None and job.terms.on_deadline == job_pb2.DEADLINE_POLICY_EXPIRE:
            deadlines[job.name] = job.terms.deadline_ns
    later = {
        (job, chunk.start): chunk.ready_at_ns
        for job, chunks in state.chunks.items()
        for chunk in chunks.values()
        if state.jobs[job].ending is None and not chunk.fence and chunk.ready_at_ns > state.time_ns
    }
    same_times(state.agenda.chunks, later)
    same_times(state.agenda.deadlines, deadlines)
    same_times(state.agenda.stops, stops)


def same_times(kept: DueTimes[Any], counted: dict[Any, int]) -> None:
    """The list holds exactly these keys, in order."""
    assert kept.times == counted
    assert kept.order == sorted((time_ns, key) for key, time_ns in counted.items())


def check_accounts(state: State) -> None:
    """The order of tenants on each model, and what their open leases are charged."""
    waiting: dict[str, set[str]] = {}
    for name in vars(state.ready)["_keys"]:
        job = state.jobs[name]
        waiting.setdefault(job.tenant, set()).add(job.model)
    assert waiting == state.accounts.waiting()
    tokens = state.accounts.tokens
    for model in {job.model for job in state.jobs.values()}:
        served = sorted((tokens[tenant], tenant) for tenant, models in waiting.items() if model in models)
        assert served == state.accounts.order(model)
    for lease in state.leases.values():
        assert lease.charged >= 0
        assert lease.kind is LeaseKind.CHUNK or not lease.charged
    assert state.busy == Counter(lease.worker_id for lease in state.leases.values() if lease.kind is LeaseKind.CHUNK)


def check_caps(state: State, limits: Limits) -> None:
    """Work in flight never exceeds a cap (I6)."""
    assert state.in_flight.total <= limits.max_leases
    assert max(state.in_flight.by_tenant.values(), default=0) <= limits.max_leases_per_tenant
    assert max(state.in_flight.by_model.values(), default=0) <= limits.max_leases_per_model
    assert max(state.in_flight.by_job.values(), default=0) <= limits.max_leases_per_job


def summary(state: State) -> dict[str, Any]:
    """Everything in a state, comparable."""
    fields = {name: getattr(state, name) for name in State.__slots__}
    fields["ready"] = vars(state.ready)
    fields["in_flight"] = vars(state.in_flight)
    fields["accounts"] = vars(state.accounts)
    return fields


def restorable(state: State, time_ns: int | None = None) -> dict[str, Any]:
    """What a snapshot and the events behind it must give again: all but guesses that are refreshed in passing.

    The clock goes on between events. `time_ns` is one to which to let it go on.
    """
    state.pass_time(time_ns or state.time_ns)
    fields = summary(state)
    fields["ready"] = {name: fields["ready"][name] for name in ("_lists", "_keys")}
    return fields


def check_same(one: State, other: State) -> None:
    """Raise AssertionError unless both are states after the same events."""
    time_ns = max(one.time_ns, other.time_ns)
    assert restorable(one, time_ns) == restorable(other, time_ns)


def check_claims(state: State) -> None:
    """Demand and holdings are what the jobs add up to."""
    demand, holdings = Demand(), Holdings()
    for job in state.jobs.values():
        demand.set(job)
        holdings.move(None, job)
    assert state.demand == demand
    assert state.holdings == holdings

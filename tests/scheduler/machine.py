"""A random walk over what gateways, workers, time and crashes can do (I1-I8, I10); `life_machine` adds the rest.

The machine compares the scheduler with `reference`: an independent account of what was acknowledged.
"""

import tempfile
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from services.scheduler import archived, snapshot
from services.scheduler.core import cleanup, due, endings, jobs, leasing, models, parts, steering, views, writers
from services.scheduler.core.apply import apply
from services.scheduler.core.checks import find_job
from services.scheduler.core.codec import tally_message
from services.scheduler.core.leasing import EXPIRED, Requeue
from services.scheduler.core.limits import Limits
from services.scheduler.core.records import LeaseKind
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND, to_timestamp
from services.scheduler.engine import Events
from services.scheduler.ledger import Ledger, MemoryLedger
from services.scheduler.ledger.base import replay
from tests.scheduler import builders, recount
from tests.scheduler.desk import DIED, FAILED, RELEASED
from tests.scheduler.policy_twin import Twin
from tests.scheduler.reference import Held, JobHistory
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import ledger_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

DEATHS = 2
"""So often a row has to kill an engine alone."""

LIMITS = Limits(
    chunk_rows=6,
    max_leases=7,
    max_leases_per_tenant=5,
    max_leases_per_model=6,
    max_leases_per_job=3,
    max_attempts=2,
    max_condemned_rows=2,
    breaker_rows=8,
)
GRACE = 2
DAY = 24 * 3600
MODELS = ("tiny", "other")
TENANTS = ("acme", "beta")
TERMINAL = {
    job_pb2.JOB_STATE_SUCCEEDED,
    job_pb2.JOB_STATE_FAILED,
    job_pb2.JOB_STATE_CANCELLED,
    job_pb2.JOB_STATE_EXPIRED,
}
GIVEN_UP = {
    job_pb2.JOB_STATE_CANCELLED: "cancelled",
    job_pb2.JOB_STATE_EXPIRED: "expired",
    job_pb2.JOB_STATE_FAILED: "failed",
}


class RowsMachine(RuleBasedStateMachine):
    """Rows, leases, parts, closing tasks, crashes. Over the memory ledger, unless a subclass says otherwise."""

    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def make_ledger(self) -> Ledger:
        return MemoryLedger()

    def reopen_ledger(self) -> Ledger:
        return self.ledger

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = self.make_ledger()
        self.epoch = self.ledger.open("machine").epoch
        self.snapshot = b""
        self.state = State()
        self.now = 1_000_000.0
        self.behind = 0.0
        self.histories: dict[str, JobHistory] = {}
        self.last_fence = 0
        self.drained: set[str] = set()

    @property
    def wall(self) -> float:
        """What the wall clock shows; `now` is the time that the ledger goes by."""
        return self.now - self.behind

    @property
    def wall_ns(self) -> int:
        return int(self.wall * SECOND)

    def record(self, decide: Callable[..., Events], *arguments: Any) -> Events:
        """Decide, append durably, apply: the engine's order, one command at a time."""
        self.state.pass_time(int(self.now * SECOND))
        before = self.state.sequence
        events = decide(self.state, *arguments)
        for number, event in enumerate(events, before + 1):
            event.sequence, event.epoch = number, self.epoch
            event.time.CopyFrom(to_timestamp(max(int(self.now * SECOND), self.state.time_ns)))
        if events:
            self.ledger.append(self.epoch, before, events)
        for event in events:
            apply(self.state, event)
        return events

    # Gateways.

    @rule(
        target=jobs,
        tenant=st.sampled_from(TENANTS),
        model=st.sampled_from(MODELS),
        deadline=st.sampled_from([120, 3600, 18_000]),
        request=st.sampled_from(["", "once"]),
        expires=st.booleans(),
    )
    def create(self, tenant: str, model: str, deadline: int, request: str, *, expires: bool = False) -> Any:
        number = len(self.histories) + 1
        request_id = f"{request}-{tenant}-{model}-{deadline}" if request else ""
        complete_by = int(self.wall) + deadline
        spec = builders.spec(number, tenant=tenant, model=model, deadline=complete_by, request_id=request_id)
        spec.on_deadline = job_pb2.DEADLINE_POLICY_EXPIRE if expires else job_pb2.DEADLINE_POLICY_RUN_LATE
        events = self.record(jobs.create_job, spec, self.wall_ns)
        if not events:
            existing = jobs.existing_job(self.state, spec)
            assert existing is not None
            assert existing.name in self.histories
            return multiple()
        self.histories[spec.name] = JobHistory(spec.name, self.now, complete_by, expires)
        return spec.name

    @rule(
        target=jobs,
        tenant=st.sampled_from(TENANTS),
        model=st.sampled_from(MODELS),
        deadline=st.sampled_from([120, 3600, 18_000]),
        counts=st.lists(st.integers(1, 9), min_size=1, max_size=3),
        expires=st.booleans(),
    )
    def submit(self, tenant: str, model: str, deadline: int, counts: list[int], *, expires: bool) -> Any:
        """What most clients do: create, append, seal."""
        job = self.create(tenant, model, deadline, "", expires=expires)
        for count in counts:
            self.append(job, count)
        self.seal(job)
        return job

    @rule(job=jobs, count=st.integers(1, 40))
    def append(self, job: str, count: int) -> None:
        history = self.histories[job]
        if self.is_hidden(history, writers.open_writer, job):
            return
        if not history.open:
            assert refusal(self.record, writers.open_writer, job).reason is Reason.JOB_NOT_RECEIVING
            return
        self.record(writers.open_writer, job)
        epoch = self.state.jobs[job].writer_epoch
        request = builders.segment(job, history.appended, count, epoch)
        self.record(writers.commit_segment, request)
        history.appended += count
        assert self.record(writers.commit_segment, request) == []
        older = builders.segment(job, history.appended, 1, epoch - 1)
        assert refusal(self.record, writers.commit_segment, older).reason is Reason.WRITER_SUPERSEDED
        gap = builders.segment(job, history.appended + 1, 1, epoch)
        assert refusal(self.record, writers.commit_segment, gap).reason is Reason.OFFSET_GAP

    @rule(job=jobs)
    def seal(self, job: str) -> None:
        history = self.histories[job]
        request = builders.seal(job, history.appended)
        if self.is_hidden(history, jobs.seal_job, request):
            return
        if history.sealed:
            assert self.record(jobs.seal_job, request) == []
        elif not history.open:
            assert refusal(self.record, jobs.seal_job, request).reason is Reason.JOB_NOT_RECEIVING
        elif not history.appended:
            assert refusal(self.record, jobs.seal_job, request).reason is Reason.JOB_EMPTY
        else:
            wrong = builders.seal(job, history.appended + 1)
            assert refusal(self.record, jobs.seal_job, wrong).reason is Reason.ROW_COUNT_MISMATCH
            self.record(jobs.seal_job, request)
            history.sealed = True

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        history = self.histories[job]
        if self.is_hidden(history, jobs.cancel_job, job):
            return
        if history.cancelled:
            assert self.record(jobs.cancel_job, job) == []
            return
        if history.halted or history.complete:
            assert refusal(self.record, jobs.cancel_job, job).reason is Reason.JOB_TERMINAL
            return
        live = self.live_chunks(job)
        self.record(jobs.cancel_job, job)
        history.cancelled, history.stopped_at = True, self.now
        assert self.live_chunks(job) == live
        assert all(views.is_stopping(self.state, job, fence) for fence in live)

    def live_chunks(self, job: str) -> set[int]:
        leases = (self.state.leases[fence] for fence in self.state.leases_of.get(job, ()))
        return {lease.fence for lease in leases if lease.kind is LeaseKind.CHUNK}

    def is_hidden(self, history: JobHistory, decide: Callable[..., Events], *arguments: Any) -> bool:
        """Whether the job is deleted or archived; then this command does not find it."""
        if history.hidden:
            assert refusal(self.record, decide, *arguments).reason is Reason.JOB_NOT_FOUND
        return history.hidden

    def record_due(self) -> None:
        """What the scheduler's timer does whenever time has passed."""
        expiring = [history for history in self.histories.values() if history.expires_by(self.wall)]
        while self.record(due.due_events, LIMITS, self.wall_ns):
            pass
        grace_ends = self.state.agenda.stops.first()
        assert grace_ends is None or grace_ends > self.now * SECOND
        for history in expiring:
            assert self.state.jobs[history.name].heading_for == job_pb2.JOB_STATE_EXPIRED
            history.expired, history.stopped_at = True, self.now
            # One without rows has nothing to close.
            history.ended_at = self.now if self.state.jobs[history.name].terminal else None
        for history in self.histories.values():
            if history.ended_at is not None and history.deleted_at is None and self.wall - history.ended_at >= 30 * DAY:
                history.deleted_at = self.wall

    # Workers.

    @rule(target=leases, count=st.integers(1, 4), offered=st.sets(st.sampled_from(MODELS), min_size=1))
    def lease(self, count: int, offered: set[str]) -> Any:
        return multiple(*self.grant(count, offered))

    def grant(self, count: int, offered: set[str]) -> list[Held]:
        offer = builders.offer("w1", **dict.fromkeys(offered, builders.LOADED))
        held: list[Held] = []
        for _ in range(count):
            self.state.pass_time(int(self.now * SECOND))
            due_first = Twin(self.state, offer, LIMITS, self.wall_ns).choice()
            events = self.record(leasing.lease_next, offer, LIMITS, self.wall_ns)
            if events and events[0].HasField("chunk_leased"):
                # I8: whose turn it is; with all models loaded no valve blurs it.
                assert due_first is not None
                assert events[0].chunk_leased.job == due_first.name
            if not events:
                self.check_nothing_was_withheld(offered)
                break
            lease = self.state.leases[events[0].sequence]
            message = views.lease_message(self.state, lease, 15)
            self.check_lease(message, offered)
            held.append(Held(message))
        return held

    def check_lease(self, message: pb.Lease, offered: set[str]) -> None:
        """Fences rise (I2); only uncommitted rows are leased; the segments cover them (I1)."""
        assert message.fence > self.last_fence
        self.last_fence = message.fence
        history = self.histories[message.spec.name]
        if message.kind == pb.LEASE_KIND_CLEANUP:
            if not self.check_cleanup(message, history):
                self.check_nothing_was_withheld(offered)
            return
        assert not history.done
        if message.kind == pb.LEASE_KIND_FINALISE:
            self.check_closing(message, history)
            return
        assert message.spec.model in offered - self.drained
        takes_none = history.halted or history.paused
        assert not takes_none
        rows = range(message.chunk_start, message.chunk_start + message.chunk_rows)
        done = int.from_bytes(message.done_bitmap, "little")
        assert {row for row in rows if done >> (row - rows.start) & 1} == set(rows) & history.results.keys()
        covered = {row for ref in message.segments for row in range(ref.start, ref.start + ref.count)}
        assert set(rows) <= covered
        missing = set(rows) - history.results.keys()
        assert message.alone == bool(missing & history.suspects)
        condemned = int.from_bytes(message.condemned_bitmap, "little")
        assert {row for row in rows if condemned >> (row - rows.start) & 1} == missing & history.condemned
        assert 1 <= len(rows) <= LIMITS.chunk_rows

    def check_cleanup(self, message: pb.Lease, history: JobHistory) -> bool:
        """Files go an hour after the end, or a day after the deletion; returns whether before any rows."""
        assert history.ended_at is not None
        due = history.ended_at + 3600
        if message.cleanup == ledger_pb2.CLEANUP_KIND_PURGE:
            assert history.deleted_at is not None
            due = history.deleted_at + DAY
        else:
            assert not history.swept
        assert self.wall >= due
        return self.wall >= due + 3600

    def check_closing(self, message: pb.Lease, history: JobHistory) -> None:
        missing: set[int] = set()
        for rest in message.remainders:
            done = int.from_bytes(rest.done_bitmap, "little")
            missing |= {rest.chunk_start + bit for bit in range(rest.chunk_rows) if not done >> bit & 1}
        assert missing == set(range(history.appended)) - history.results.keys()
        assert message.row_count == history.appended

    def check_nothing_was_withheld(self, offered: set[str]) -> None:
        """A worker goes away empty only if caps or a lack of work say so."""
        flight = self.state.in_flight
        if flight.total >= LIMITS.max_leases:
            return
        for job in self.state.jobs.values():
            history = self.histories[job.name]
            takes = history.sealed and not (history.halted or history.complete or history.paused)
            if not takes or job.model not in offered - self.drained:
                continue
            backing_off = sum(
                self.state.chunks[name][start].missing
                for name, start in self.state.agenda.chunks.times
                if name == job.name
            )
            waiting = job.leased_rows + job.results + backing_off < job.end
            capped = (
                flight.by_job[job.name] >= LIMITS.max_leases_per_job
                or flight.by_tenant[job.tenant] >= LIMITS.max_leases_per_tenant
                or flight.by_model[job.model] >= LIMITS.max_leases_per_model
            )
            assert capped or not waiting

    @rule(target=leases)
    def lease_all(self) -> Any:
        """An idle worker that takes what it can get."""
        return self.lease(8, set(MODELS))

    @rule(held=leases)
    def complete(self, held: Held) -> None:
        """What most workers do: answer the rest of the chunk, or close the job."""
        self.update_liveness(held)
        if held.message.kind == pb.LEASE_KIND_FINALISE:
            self.finalise(held, at_once=True)
        elif held.message.kind == pb.LEASE_KIND_CLEANUP:
            self.clean_up(held)
        elif held.live:
            self.finish_chunk(held)

    @rule(held=leases, data=st.data(), fail=st.booleans())
    def commit(self, held: Held, data: st.DataObject, fail: bool) -> None:
        history = self.histories[held.message.spec.name]
        if held.message.kind != pb.LEASE_KIND_CHUNK or history.hidden:
            return
        missing = sorted(set(held.rows) - history.results.keys())
        chosen = set(data.draw(st.sets(st.sampled_from(missing), min_size=1))) if missing else set(held.rows)
        offsets = {row - held.rows.start for row in chosen}
        request = builders.part(held.message, offsets, number=len(held.parts), failed=len(offsets) if fail else 0)
        self.update_liveness(held)
        if not held.live:
            assert refusal(self.record, parts.commit_part, request).reason is Reason.STALE_FENCE
            return
        assert missing
        self.record(parts.commit_part, request, LIMITS)
        assert self.record(parts.commit_part, request, LIMITS) == []
        held.parts.append(request)
        history.results |= dict.fromkeys(chosen, "failed" if fail else "succeeded")
        self.note_breaker(history)

    def note_breaker(self, history: JobHistory) -> None:
        """A job all of whose first rows failed pauses itself."""
        failed = set(history.results.values()) == {"failed"} and len(history.results) >= LIMITS.breaker_rows
        if failed and not (history.halted or history.complete or history.paused or history.breaker_off):
            history.pause = "ALL_ROWS_FAILED"

    def clean_up(self, held: Held) -> None:
        job, fence = held.message.spec.name, held.message.fence
        history = self.histories[job]
        if held.live:
            self.record(cleanup.finish_cleanup, job, fence, 1)
            history.swept = True
            history.forgotten |= held.message.cleanup == ledger_pb2.CLEANUP_KIND_PURGE
        assert refusal(self.record, cleanup.finish_cleanup, job, fence, 1).reason is Reason.STALE_FENCE

    @rule(held=leases, data=st.data())
    def repeat_commit(self, held: Held, data: st.DataObject) -> None:
        if not held.parts or self.histories[held.message.spec.name].hidden:
            return
        request = data.draw(st.sampled_from(held.parts))
        assert self.record(parts.commit_part, request) == []
        other = pb.CommitPartRequest.FromString(request.SerializeToString())
        other.part.sha256 = b"\x01" * 32
        assert refusal(self.record, parts.commit_part, other).reason is Reason.PART_CONFLICT
        again = pb.CommitPartRequest.FromString(request.SerializeToString())
        again.part.part_number = 1000
        assert refusal(self.record, parts.commit_part, again).reason in (Reason.PART_CONFLICT, Reason.STALE_FENCE)

    def update_liveness(self, held: Held) -> None:
        """A worker learns from ExtendLeases; here, whether what it is told agrees with what callers know."""
        history = self.histories[held.message.spec.name]
        void = views.is_void(self.state, held.message.spec.name, held.message.fence, "w1")
        chunk = held.message.kind == pb.LEASE_KIND_CHUNK
        finished_chunk = chunk and set(held.rows) <= history.results.keys()
        over = history.stopped_at is not None and self.now >= history.stopped_at + GRACE
        if finished_chunk or (chunk and (history.done or history.failed or over)):
            assert void
        if not held.live:
            assert void
        held.live = not void

    @rule(held=leases)
    def extend(self, held: Held) -> None:
        self.update_liveness(held)

    @rule(held=consumes(leases), how=st.sampled_from(["expire", "release", "fail", "die", "die"]))
    def end_lease(self, held: Held, how: str) -> None:
        self.update_liveness(held)
        requeue = {
            "expire": EXPIRED,
            "release": Requeue(RELEASED, "bye"),
            "fail": Requeue(FAILED, "broken"),
            "die": Requeue(DIED, "engine died"),
        }[how]
        job, fence = held.message.spec.name, held.message.fence
        gone = Reason.JOB_NOT_FOUND if self.histories[job].hidden else Reason.STALE_FENCE
        if held.live:
            events = self.record(leasing.release_lease, job, fence, requeue, LIMITS)
            if held.message.kind == pb.LEASE_KIND_CHUNK:
                self.note_loss(held, how, events)
        assert refusal(self.record, leasing.release_lease, job, fence, requeue, LIMITS).reason is gone

    @rule(target=leases, tenant=st.sampled_from(TENANTS), model=st.sampled_from(MODELS))
    def keep_dying(self, tenant: str, model: str) -> Any:
        """A job under which engines die, again and again."""
        job = self.submit(tenant, model, 3600, [7], expires=False)
        others: list[Held] = []
        for _ in range(10):
            for held in self.grant(1, {model}):
                if held.message.spec.name == job and held.message.kind == pb.LEASE_KIND_CHUNK:
                    self.end_lease(held, "die")
                    self.indices_equal_a_recount()
                else:
                    others.append(held)
            if self.histories[str(job)].halted:
                break
            self.pass_time(60)
        return multiple(*others)

    @rule()
    def work_off(self) -> None:
        """A worker that works on everything for a while."""
        for _ in range(20):
            granted = self.grant(1, set(MODELS))
            if not granted:
                return
            self.complete(granted[0])

    def note_loss(self, held: Held, how: str, events: Events) -> None:
        """What a lease that ended undone may lead to."""
        history = self.histories[held.message.spec.name]
        if history.halted:
            return
        kinds = [event.WhichOneof("payload") for event in events]
        reason = events[0].chunk_requeued.reason
        missing = set(held.rows) - history.results.keys()
        last_attempt = held.message.attempt >= LIMITS.max_attempts
        assert reason != DIED or how == "die" or (how == "expire" and last_attempt)
        assert (how == "die" and not missing & history.condemned) <= (reason == DIED)
        assert events[0].chunk_requeued.HasField("ready_time") == (how != "release")
        alone = reason == DIED and held.message.alone
        if reason == DIED:
            history.suspects |= missing
        if alone and len(missing) == 1:
            history.killed_alone.update(missing)
        condemned = {row for row in missing if alone and history.killed_alone[row] >= DEATHS and len(missing) == 1}
        assert ("chunk_split" in kinds) == (alone and len(missing) > 1)
        assert ("row_condemned" in kinds) == bool(condemned)
        history.condemned |= condemned
        history.suspects -= condemned
        if "job_ending" in kinds:
            too_many = len(history.condemned) > LIMITS.max_condemned_rows
            assert too_many if condemned else (how in ("fail", "expire", "die") and last_attempt)
            history.failed = True

    @rule(held=leases, at_once=st.booleans())
    def finalise(self, held: Held, at_once: bool) -> None:
        if held.message.kind != pb.LEASE_KIND_FINALISE:
            return
        job = held.message.spec.name
        history = self.histories[job]
        self.update_liveness(held)
        if not held.live:
            return
        missing = set(range(history.appended)) - history.results.keys()
        if at_once and missing:
            premature = builders.finish(held.message, tally_message(self.state.jobs[job].tally))
            assert refusal(self.record, endings.finish_job, premature).reason is Reason.TALLY_MISMATCH
        self.give_up(held, history)
        request = builders.finish(held.message, tally_message(self.state.jobs[job].tally))
        self.record(endings.finish_job, request)
        assert self.record(endings.finish_job, request) == []
        history.terminal, history.ended_at = held.message.outcome, self.now

    def give_up(self, held: Held, history: JobHistory) -> None:
        outcome = GIVEN_UP.get(held.message.outcome, "")
        for rest in held.message.remainders:
            rows = {bit for bit in range(rest.chunk_rows) if rest.chunk_start + bit not in history.results}
            if not rows:
                continue
            chunk = (rest.chunk_start, rest.chunk_rows)
            number = len(held.parts)
            request = builders.part(held.message, rows, number=number, chunk=chunk, outcome=outcome)
            self.record(parts.commit_part, request)
            held.parts.append(request)
            history.results |= {rest.chunk_start + bit: outcome for bit in rows}

    # Time and crashes.

    @rule(seconds=st.sampled_from([0.5, 20.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.record_due()

    @rule(hours=st.sampled_from([1.5, 3, 25, 25, 31 * 24]), luck=st.integers(0, 1))
    def jump(self, hours: float, luck: int) -> None:
        """Seldom: the clock jumps by hours. Unsealed jobs expire after a day, old ones are deleted after a month."""
        if not luck:
            self.now += hours * 3600
            self.record_due()

    @rule(hours=st.sampled_from([0, 1.5, 25]), luck=st.integers(0, 2))
    def set_clock(self, hours: float, luck: int) -> None:
        """Seldom: the wall clock is set back, or right again. The ledger's time goes on all the same."""
        if not luck:
            self.behind = hours * 3600
            self.record_due()

    @rule()
    def archive(self) -> None:
        """The job that ended first leaves memory; the archive shows what was shown before."""
        if not self.state.ended:
            return
        name = self.state.ended[0][1]
        kept = archived.state_of(archived.unpack(archived.row(archived.take(self.state, name)).blob, name))
        assert views.job_record(kept.jobs[name]) == views.job_record(self.state.jobs[name])
        for shown, before in ((kept.parts, self.state.parts), (kept.segments, self.state.segments)):
            assert shown[name] == before.get(name, [])
        leaving = ledger_pb2.LedgerEvent(job_archived=ledger_pb2.JobArchived(job=name))
        self.record(lambda _state: [leaving])
        self.histories[name].archived = True

    @rule()
    def take_snapshot(self) -> None:
        self.snapshot = snapshot.write(self.state)

    @rule()
    def crash(self) -> None:
        before, time_ns = recount.summary(self.state), self.state.time_ns
        self.ledger = self.reopen_ledger()
        former, self.epoch = self.epoch, self.ledger.open("heir").epoch
        late = ledger_pb2.LedgerEvent(sequence=self.state.sequence + 1, job_resumed=ledger_pb2.JobResumed(job="x"))
        error = refusal(self.ledger.append, former, self.state.sequence, [late])
        assert error.reason is Reason.LEDGER_FENCED
        self.state = State()
        for event in replay(self.ledger):
            apply(self.state, event)
        self.state.pass_time(time_ns)
        assert recount.summary(self.state) == before
        self.start_from_snapshot()

    def start_from_snapshot(self) -> None:
        """A snapshot and the events behind it give the state that all events give."""
        if not self.snapshot:
            return
        state = snapshot.load(self.snapshot)
        for event in replay(self.ledger, state.sequence):
            apply(state, event)
        state.pass_time(self.state.time_ns)
        recount.check_same(state, self.state)

    # What always holds.

    @invariant()
    def indices_equal_a_recount(self) -> None:
        recount.check(self.state, LIMITS)

    @invariant()
    def callers_find_what_was_acknowledged(self) -> None:
        known = {history.name for history in self.histories.values() if not (history.forgotten or history.archived)}
        assert self.state.jobs.keys() == known
        for history in self.histories.values():
            if not history.hidden:
                self.check_view(history)
            else:
                assert refusal(find_job, self.state, history.name).reason is Reason.JOB_NOT_FOUND

    def check_view(self, history: JobHistory) -> None:
        record = views.job_record(self.state.jobs[history.name])
        counts = record.row_counts
        assert counts.total == history.appended
        outcomes = (counts.succeeded, counts.failed, counts.cancelled, counts.expired)
        assert sum(outcomes) + counts.pending + counts.leased == counts.total
        names = ("succeeded", "failed", "cancelled", "expired")
        values = list(history.results.values())
        assert outcomes == tuple(values.count(name) for name in names)
        assert record.complete_by_time.seconds == history.deadline
        assert record.pause.reason == (history.pause if history.paused else "")
        assert (record.state == job_pb2.JOB_STATE_PAUSED) == history.paused
        assert (record.state == job_pb2.JOB_STATE_RECEIVING) == history.open
        if record.state in TERMINAL:
            assert history.terminal in (record.state, job_pb2.JOB_STATE_UNSPECIFIED)
            assert len(history.results) == history.appended
            history.terminal = record.state
            history.ended_at = self.now if history.ended_at is None else history.ended_at
        else:
            assert not history.done

    def teardown(self) -> None:
        """Once faults stop, every sealed or ending job reaches a terminal state (I10)."""
        if not hasattr(self, "state"):
            return
        try:
            self.let_everything_end()
            for job in self.state.jobs.values():
                assert job.terminal or job.receiving
            assert not any(lease.kind is LeaseKind.CHUNK for lease in self.state.leases.values())
            self.callers_find_what_was_acknowledged()
        finally:
            self.ledger.close()
            self.folder.cleanup()

    def let_everything_end(self) -> None:
        """Owners resume their jobs, operators give models back, and what workers hold is lost."""
        self.now += GRACE
        self.record_due()
        self.callers_find_what_was_acknowledged()
        for history in self.histories.values():
            if history.paused:
                self.record(steering.resume_job, history.name)
                history.breaker_off |= history.pause == "ALL_ROWS_FAILED"
                history.pause = ""
        for model in sorted(self.drained):
            self.record(models.change_model, pb.ChangeModelRequest(model=model, drained=False), True)
        self.drained.clear()
        for lease in list(self.state.leases.values()):
            held = Held(views.lease_message(self.state, lease, 15))
            events = self.record(leasing.expire_lease, lease.fence, LIMITS)
            if lease.kind is LeaseKind.CHUNK:
                self.note_loss(held, "expire", events)
        while True:
            self.now += 100
            offer = builders.offer("w1", **dict.fromkeys(MODELS, builders.LOADED))
            events = self.record(leasing.lease_next, offer, LIMITS, self.wall_ns)
            if not events:
                return
            held = Held(views.lease_message(self.state, self.state.leases[events[0].sequence], 15))
            self.check_lease(held.message, set(MODELS))
            self.complete(held)

    def finish_chunk(self, held: Held) -> None:
        history = self.histories[held.message.spec.name]
        missing = set(held.rows) - history.results.keys()
        condemned = missing & history.condemned
        offsets = {row - held.rows.start for row in missing}
        request = builders.part(held.message, offsets, number=len(held.parts), failed=len(condemned))
        self.record(parts.commit_part, request, LIMITS)
        held.parts.append(request)
        history.results |= dict.fromkeys(missing - condemned, "succeeded") | dict.fromkeys(condemned, "failed")
        self.note_breaker(history)

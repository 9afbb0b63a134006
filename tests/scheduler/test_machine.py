"""A random walk over everything that callers, workers, time and crashes can do, over each ledger (I1-I6, I10).

The machine compares the scheduler with `reference`: an independent account of what was acknowledged.
"""

import atexit
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from services.scheduler import snapshot
from services.scheduler.core import due, endings, jobs, leasing, parts, views, writers
from services.scheduler.core.apply import apply
from services.scheduler.core.codec import tally_message
from services.scheduler.core.leasing import EXPIRED, Requeue
from services.scheduler.core.limits import Limits
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND, to_timestamp
from services.scheduler.engine import Events
from services.scheduler.ledger import Ledger, MemoryLedger, RedisLedger, SqliteLedger
from services.scheduler.ledger.base import replay
from services.scheduler.ledger.redis_address import parse
from tests.scheduler import builders, recount
from tests.scheduler.desk import FAILED, RELEASED
from tests.scheduler.redis_server import RedisServer
from tests.scheduler.reference import Held, JobHistory
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

LIMITS = Limits(
    chunk_rows=6, max_leases=7, max_leases_per_tenant=5, max_leases_per_model=6, max_leases_per_job=3, max_attempts=2
)
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


class SchedulerMachine(RuleBasedStateMachine):
    """Subclasses say over which ledger."""

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
        self.now = 1000.0
        self.histories: dict[str, JobHistory] = {}
        self.last_fence = 0

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
        deadline=st.integers(1, 5),
        request=st.sampled_from(["", "once"]),
    )
    def create(self, tenant: str, model: str, deadline: int, request: str) -> Any:
        number = len(self.histories) + 1
        request_id = f"{request}-{tenant}-{model}-{deadline}" if request else ""
        complete_by = int(self.now) + 3600 * deadline
        spec = builders.spec(number, tenant=tenant, model=model, deadline=complete_by, request_id=request_id)
        events = self.record(jobs.create_job, spec, int(self.now * SECOND))
        if not events:
            existing = jobs.existing_job(self.state, spec)
            assert existing is not None
            assert existing.name in self.histories
            return multiple()
        self.histories[spec.name] = JobHistory(spec.name)
        return spec.name

    @rule(
        target=jobs,
        tenant=st.sampled_from(TENANTS),
        model=st.sampled_from(MODELS),
        deadline=st.integers(1, 5),
        counts=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    )
    def submit(self, tenant: str, model: str, deadline: int, counts: list[int]) -> Any:
        """What most clients do: create, append, seal."""
        job = self.create(tenant, model, deadline, "")
        for count in counts:
            self.append(job, count)
        self.seal(job)
        return job

    @rule(job=jobs, count=st.integers(1, 40))
    def append(self, job: str, count: int) -> None:
        history = self.histories[job]
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
        complete = history.sealed and len(history.results) == history.appended
        if not history.cancelled and (history.done or complete or history.failed or history.expired):
            assert refusal(self.record, jobs.cancel_job, job).reason is Reason.JOB_TERMINAL
            return
        events = self.record(jobs.cancel_job, job)
        assert bool(events) != history.cancelled
        history.cancelled = True
        self.now += 2
        self.record_due()

    def record_due(self) -> None:
        while self.record(due.due_events, LIMITS, int(self.now * SECOND)):
            pass

    # Workers.

    @rule(target=leases, count=st.integers(1, 4), offered=st.sets(st.sampled_from(MODELS), min_size=1))
    def lease(self, count: int, offered: set[str]) -> Any:
        offer = builders.offer("w1", **dict.fromkeys(offered, builders.LOADED))
        held: list[Held] = []
        for _ in range(count):
            events = self.record(leasing.lease_next, offer, LIMITS, int(self.now * SECOND))
            if not events:
                self.check_nothing_was_withheld(offered)
                break
            lease = self.state.leases[events[0].sequence]
            message = views.lease_message(self.state, lease, 15)
            self.check_lease(message, offered)
            held.append(Held(message))
        return multiple(*held)

    def check_lease(self, message: pb.Lease, offered: set[str]) -> None:
        """Fences rise (I2); only uncommitted rows are leased; the segments cover them (I1)."""
        assert message.fence > self.last_fence
        self.last_fence = message.fence
        history = self.histories[message.spec.name]
        assert not history.done
        if message.kind == pb.LEASE_KIND_FINALISE:
            self.check_closing(message, history)
            return
        assert message.spec.model in offered
        rows = range(message.chunk_start, message.chunk_start + message.chunk_rows)
        done = int.from_bytes(message.done_bitmap, "little")
        assert {row for row in rows if done >> (row - rows.start) & 1} == set(rows) & history.results.keys()
        covered = {row for ref in message.segments for row in range(ref.start, ref.start + ref.count)}
        assert set(rows) <= covered
        assert 1 <= len(rows) <= LIMITS.chunk_rows

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
            if job.seal is None or job.ending is not None or job.model not in offered:
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
        elif held.live:
            self.finish_chunk(held)

    @rule(held=leases, data=st.data(), fail=st.booleans())
    def commit(self, held: Held, data: st.DataObject, fail: bool) -> None:
        if held.message.kind == pb.LEASE_KIND_FINALISE:
            return
        history = self.histories[held.message.spec.name]
        missing = sorted(set(held.rows) - history.results.keys())
        chosen = set(data.draw(st.sets(st.sampled_from(missing), min_size=1))) if missing else set(held.rows)
        offsets = {row - held.rows.start for row in chosen}
        request = builders.part(held.message, offsets, number=len(held.parts), failed=len(offsets) if fail else 0)
        self.update_liveness(held)
        if not held.live:
            assert refusal(self.record, parts.commit_part, request).reason is Reason.STALE_FENCE
            return
        assert missing
        self.record(parts.commit_part, request)
        held.parts.append(request)
        history.results |= dict.fromkeys(chosen, "failed" if fail else "succeeded")

    @rule(held=leases, data=st.data())
    def repeat_commit(self, held: Held, data: st.DataObject) -> None:
        if not held.parts:
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
        finished_chunk = held.message.kind == pb.LEASE_KIND_CHUNK and set(held.rows) <= history.results.keys()
        if history.done or finished_chunk or (history.cancelled and held.message.kind == pb.LEASE_KIND_CHUNK):
            assert void
        if not held.live:
            assert void
        held.live = not void

    @rule(held=leases)
    def extend(self, held: Held) -> None:
        self.update_liveness(held)

    @rule(held=consumes(leases), how=st.sampled_from(["expire", "release", "fail"]))
    def end_lease(self, held: Held, how: str) -> None:
        self.update_liveness(held)
        requeue = {
            "expire": EXPIRED,
            "release": Requeue(RELEASED, "bye"),
            "fail": Requeue(FAILED, "engine died"),
        }[how]
        job, fence = held.message.spec.name, held.message.fence
        if not held.live:
            assert refusal(self.record, leasing.release_lease, job, fence, requeue, LIMITS).reason is Reason.STALE_FENCE
            return
        self.record(leasing.release_lease, job, fence, requeue, LIMITS)
        history = self.histories[job]
        ending = self.state.jobs[job].ending
        if ending is not None and ending.outcome == job_pb2.JOB_STATE_FAILED:
            # A chunk may fail its job only when its attempts are used up.
            assert how == "fail" or history.failed
            assert held.message.attempt >= LIMITS.max_attempts or history.failed
            history.failed = True
        assert refusal(self.record, leasing.release_lease, job, fence, requeue, LIMITS).reason is Reason.STALE_FENCE

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
        history.terminal = held.message.outcome

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

    @rule(luck=st.integers(0, 7))
    def pass_a_day(self, luck: int) -> None:
        """Seldom: unsealed jobs expire, all others go on."""
        if luck:
            return
        self.now += 25 * 3600
        self.record_due()
        for history in self.histories.values():
            history.expired |= history.open
            if history.expired:
                assert self.state.jobs[history.name].expect_ending().outcome == job_pb2.JOB_STATE_EXPIRED

    @rule()
    def take_snapshot(self) -> None:
        self.snapshot = snapshot.write(self.state)

    @rule()
    def crash(self) -> None:
        before, time_ns = recount.summary(self.state), self.state.time_ns
        self.ledger = self.reopen_ledger()
        self.epoch = self.ledger.open("heir").epoch
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
        recount.check_same(state, self.state)

    # What always holds.

    @invariant()
    def indices_equal_a_recount(self) -> None:
        recount.check(self.state, LIMITS)

    @invariant()
    def callers_find_what_was_acknowledged(self) -> None:
        assert self.state.jobs.keys() == self.histories.keys()
        for history in self.histories.values():
            record = views.job_record(self.state.jobs[history.name])
            counts = record.row_counts
            assert counts.total == history.appended
            outcomes = (counts.succeeded, counts.failed, counts.cancelled, counts.expired)
            assert sum(outcomes) + counts.pending + counts.leased == counts.total
            names = ("succeeded", "failed", "cancelled", "expired")
            values = list(history.results.values())
            assert outcomes == tuple(values.count(name) for name in names)
            if record.state in TERMINAL:
                assert history.terminal in (record.state, job_pb2.JOB_STATE_UNSPECIFIED)
                assert len(history.results) == history.appended
                history.terminal = record.state
            else:
                assert not history.done

    def teardown(self) -> None:
        """Once faults stop, every sealed or ending job reaches a terminal state (I10)."""
        if not hasattr(self, "state"):
            return
        self.let_everything_end()
        for job in self.state.jobs.values():
            assert job.terminal or job.receiving
        self.callers_find_what_was_acknowledged()
        self.ledger.close()
        self.folder.cleanup()

    def let_everything_end(self) -> None:
        for fence in list(self.state.leases):
            self.record(leasing.expire_lease, fence, LIMITS)
        for history in self.histories.values():
            ending = self.state.jobs[history.name].ending
            history.failed |= ending is not None and ending.outcome == job_pb2.JOB_STATE_FAILED
        while True:
            self.now += 100
            offer = builders.offer("w1", **dict.fromkeys(MODELS, builders.LOADED))
            events = self.record(leasing.lease_next, offer, LIMITS, int(self.now * SECOND))
            if not events:
                return
            held = Held(views.lease_message(self.state, self.state.leases[events[0].sequence], 15))
            self.check_lease(held.message, set(MODELS))
            if held.message.kind == pb.LEASE_KIND_FINALISE:
                self.finalise(held, at_once=False)
            else:
                self.finish_chunk(held)

    def finish_chunk(self, held: Held) -> None:
        history = self.histories[held.message.spec.name]
        missing = set(held.rows) - history.results.keys()
        request = builders.part(held.message, {row - held.rows.start for row in missing}, number=len(held.parts))
        self.record(parts.commit_part, request)
        held.parts.append(request)
        history.results |= dict.fromkeys(missing, "succeeded")


class SqliteMachine(SchedulerMachine):
    def make_ledger(self) -> Ledger:
        return SqliteLedger(Path(self.folder.name) / "ledger.sqlite3")

    def reopen_ledger(self) -> Ledger:
        self.ledger.close()
        return self.make_ledger()


class RedisMachine(SchedulerMachine):
    """Every example has a ledger name of its own in one Redis, which ends with the tests."""

    server: RedisServer | None = None

    def make_ledger(self) -> Ledger:
        if RedisMachine.server is None:
            RedisMachine.server = RedisServer(Path(tempfile.mkdtemp()))
            RedisMachine.server.start()
            atexit.register(RedisMachine.server.kill)
        return RedisLedger(parse(RedisMachine.server.url(uuid.uuid4().hex)))

    def reopen_ledger(self) -> Ledger:
        self.ledger.close()
        assert isinstance(self.ledger, RedisLedger)
        return RedisLedger(self.ledger.address)


_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

TestMemoryMachine = SchedulerMachine.TestCase
TestMemoryMachine.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=_QUIET
)
TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=_QUIET
)
TestRedisMachine = RedisMachine.TestCase
TestRedisMachine.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=_QUIET
)

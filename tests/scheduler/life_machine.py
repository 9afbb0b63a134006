"""The random walk with everything that owners and operators can do besides (I1-I11)."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from services.scheduler.core import cleanup, leasing, models, steering
from tests.scheduler.machine import LIMITS, MODELS, RowsMachine
from tests.scheduler.reference import Held, JobHistory
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import ledger_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2


class SchedulerMachine(RowsMachine):
    """Pause, resume, update, delete, force, drain. Subclasses say over which ledger."""

    @rule(job=RowsMachine.jobs, resume=st.booleans())
    def pause(self, job: str, resume: bool) -> None:
        history = self.histories[job]
        if self.is_hidden(history, steering.pause_job, job):
            return
        if not self.steerable(history):
            assert refusal(self.record, steering.pause_job, job).reason is Reason.JOB_NOT_PAUSABLE
            return
        events = self.record(steering.pause_job, job)
        assert bool(events) != history.paused
        history.pause = history.pause if history.paused else "PAUSED_BY_OWNER"
        assert job not in self.state.ready
        if resume:
            self.resume(job)

    @rule(job=RowsMachine.jobs)
    def resume(self, job: str) -> None:
        history = self.histories[job]
        if self.is_hidden(history, steering.resume_job, job):
            return
        if not self.steerable(history):
            assert refusal(self.record, steering.resume_job, job).reason is Reason.JOB_NOT_PAUSABLE
            return
        events = self.record(steering.resume_job, job)
        assert bool(events) == history.paused
        history.breaker_off |= history.paused and history.pause == "ALL_ROWS_FAILED"
        history.pause = ""

    def steerable(self, history: JobHistory) -> bool:
        return history.sealed and not (history.halted or history.complete)

    @rule(job=RowsMachine.jobs, seconds=st.sampled_from([10, 120, 7200, 32 * 86_400]), expires=st.booleans())
    def update(self, job: str, seconds: int, expires: bool) -> None:
        history = self.histories[job]
        deadline = int(self.wall) + seconds
        policy = job_pb2.DEADLINE_POLICY_EXPIRE if expires else job_pb2.DEADLINE_POLICY_RUN_LATE
        request = pb.UpdateJobRequest(job=job, on_deadline=policy)
        request.complete_by_time.seconds = deadline
        arguments = (steering.update_job, request, self.wall_ns)
        if self.is_hidden(history, *arguments):
            return
        if history.halted or history.complete:
            assert refusal(self.record, *arguments).reason is Reason.JOB_TERMINAL
        elif not 60 <= seconds <= 30 * 86_400:
            assert refusal(self.record, *arguments).reason is Reason.DEADLINE_OUT_OF_RANGE
        else:
            self.record(*arguments)
            assert self.record(*arguments) == []
            history.deadline, history.expires = deadline, expires

    @rule(job=RowsMachine.jobs)
    def delete(self, job: str) -> None:
        history = self.histories[job]
        arguments = (cleanup.delete_job, job, self.wall_ns)
        if history.forgotten:
            assert refusal(self.record, *arguments).reason is Reason.JOB_NOT_FOUND
        elif history.deleted_at is not None:
            assert self.record(*arguments) == []
        elif history.done:
            self.record(*arguments)
            history.deleted_at = self.wall
        else:
            assert refusal(self.record, *arguments).reason is Reason.JOB_NOT_TERMINAL

    @rule(job=RowsMachine.jobs, luck=st.integers(0, 3))
    def force_fail(self, job: str, luck: int) -> None:
        """Seldom, or few jobs would live long."""
        history = self.histories[job]
        request = pb.ForceFailJobRequest(job=job, message="enough")
        if luck or self.is_hidden(history, steering.force_fail_job, request):
            return
        if history.forced:
            assert self.record(steering.force_fail_job, request) == []
        elif history.done:
            assert refusal(self.record, steering.force_fail_job, request).reason is Reason.JOB_TERMINAL
        else:
            self.record(steering.force_fail_job, request)
            history.cancelled = history.expired = False
            history.failed = history.forced = True
            assert not self.live_chunks(job)

    @rule(held=RowsMachine.leases, data=st.data())
    def requeue(self, held: Held, data: st.DataObject) -> None:
        """An operator takes a chunk from its worker."""
        self.update_liveness(held)
        if held.message.kind != pb.LEASE_KIND_CHUNK or not held.live:
            return
        job, row = held.message.spec.name, data.draw(st.sampled_from(held.rows))
        events = self.record(leasing.requeue_chunk, job, row, LIMITS)
        assert events[0].chunk_requeued.fence == held.message.fence
        assert events[0].chunk_requeued.reason == ledger_pb2.REQUEUE_REASON_OPERATOR
        error = refusal(self.record, leasing.requeue_chunk, job, row, LIMITS)
        assert error.reason is Reason.CHUNK_NOT_LEASED
        self.update_liveness(held)
        assert not held.live

    @rule(model=st.sampled_from(MODELS), drained=st.booleans())
    def drain(self, model: str, drained: bool) -> None:
        """I11: what is drained gets no lease; `check_lease` looks."""
        request: Any = pb.ChangeModelRequest(model=model, drained=drained)
        events = self.record(models.change_model, request, True)
        assert bool(events) == (drained != (model in self.drained))
        self.drained = self.drained | {model} if drained else self.drained - {model}

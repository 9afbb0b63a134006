"""The policy's rules once more, by scanning everything: what `next_work` must agree with, whatever its indices do."""

from services.scheduler.core.estimates import model_rate
from services.scheduler.core.limits import Limits
from services.scheduler.core.offers import Offer
from services.scheduler.core.records import Job
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from tidemill.v1 import job_pb2, model_service_pb2

OPEN = (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING)
WARM = (model_service_pb2.MODEL_STATE_LOADED, model_service_pb2.MODEL_STATE_LOADING)


class Twin:
    """One question to the policy, answered slowly."""

    def __init__(self, state: State, offer: Offer, limits: Limits, now_ns: int) -> None:
        self.state, self.offer, self.limits, self.now_ns = state, offer, limits, now_ns

    def eligible(self) -> list[Job]:
        """Every job of which this worker may have a chunk."""
        leases = [lease for lease in self.state.leases.values() if lease.kind.value == "chunk"]
        owners = [self.state.jobs[lease.job] for lease in leases]
        if len(owners) >= self.limits.max_leases:
            return []
        return [job for job in self.state.jobs.values() if self.may_have(job, owners)]

    def may_have(self, job: Job, owners: list[Job]) -> bool:
        state = self.offer.models.get(job.model, model_service_pb2.MODEL_STATE_FAILED)
        flags = self.state.models.get(job.model)
        capped = (
            sum(owner.tenant == job.tenant for owner in owners) >= self.limits.max_leases_per_tenant
            or sum(owner.model == job.model for owner in owners) >= self.limits.max_leases_per_model
            or sum(owner.name == job.name for owner in owners) >= self.limits.max_leases_per_job * job.parallelism
        )
        if capped or job.state not in OPEN or job.seal is None or job.ending is not None:
            return False
        if state == model_service_pb2.MODEL_STATE_FAILED or (flags is not None and flags.drained):
            return False
        chunks = self.state.chunks.get(job.name, {}).values()
        now_ns = max(self.now_ns, self.state.time_ns)
        returned = any(not chunk.fence and chunk.ready_at_ns <= now_ns for chunk in chunks)
        return returned or job.next_cut < job.end

    def cold(self, job: Job) -> bool:
        return self.offer.models[job.model] not in WARM

    def slack(self, job: Job) -> float:
        """Seconds."""
        rate = model_rate(self.state, job.model)
        work = (job.end - job.results) * job.row_tokens / rate if rate else 0.0
        cap = self.limits.max_leases_per_job * job.parallelism
        chunks = -(-work // self.limits.chunk_seconds)
        shared = max(1, min(self.offer.engines.get(job.model, 1), cap, chunks))
        load = self.offer.load_seconds.get(job.model, self.limits.load_seconds) if self.cold(job) else 0.0
        return (job.deadline_ns - self.now_ns) / SECOND - work / shared - load

    def urgent(self, job: Job) -> bool:
        assert job.seal is not None
        window = max(1.0, (job.deadline_ns - job.seal.time_ns) / SECOND)
        return 0 <= self.slack(job) < self.limits.urgent_slack * window

    def choice(self) -> Job | None:
        """The job that is due."""
        eligible = self.eligible()
        urgent = [job for job in eligible if self.urgent(job)]
        if urgent:
            return self.most_urgent(urgent)
        here = self.turn([job for job in eligible if not self.cold(job)])
        cold = {model: self.turn([job for job in eligible if job.model == model]) for model in self.cold_models()}
        turns = [job for job in cold.values() if job is not None]
        if here is None:
            return min(turns, key=lambda job: (self.leased(job.model), *self.rank(job)), default=None)
        owed = [job for job in turns if self.owed(here, job)]
        return min(owed, key=self.rank, default=here)

    def most_urgent(self, urgent: list[Job]) -> Job:
        """By deadline, but those of a loaded model before those that can wait for two chunks."""
        first = min(urgent, key=lambda job: (job.deadline_ns, self.cold(job), job.name))
        here = [job for job in urgent if not self.cold(job)]
        if here and self.cold(first) and self.slack(first) >= 2 * self.limits.chunk_seconds:
            return min(here, key=lambda job: (job.deadline_ns, job.name))
        return first

    def cold_models(self) -> list[str]:
        return [model for model, state in self.offer.models.items() if state not in WARM]

    def leased(self, model: str) -> int:
        leases = self.state.leases.values()
        return sum(lease.kind.value == "chunk" and self.state.jobs[lease.job].model == model for lease in leases)

    def rank(self, job: Job) -> tuple[int, str, str]:
        return (self.state.accounts.tokens[job.tenant], job.tenant, job.model)

    def turn(self, jobs: list[Job]) -> Job | None:
        """Of the tenant that had least: on its first model the earliest deadline that can hold, else the earliest."""
        if not jobs:
            return None
        _, tenant, model = min(self.rank(job) for job in jobs)
        own = [job for job in jobs if (job.tenant, job.model) == (tenant, model)]
        return min(own, key=lambda job: (self.slack(job) < 0, job.deadline_ns, job.expect_seal().sequence))

    def owed(self, here: Job, there: Job) -> bool:
        tokens = self.state.accounts.tokens
        difference = (tokens[here.tenant] - tokens[there.tenant]) * self.limits.standard_weight
        seconds = difference / (model_rate(self.state, there.model) or 1000.0)
        load = self.offer.load_seconds.get(there.model, self.limits.load_seconds)
        bar = self.limits.owed_seconds * load / self.limits.load_seconds * (1 + self.leased(there.model))
        return seconds > bar

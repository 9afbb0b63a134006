"""What may be leased at all: models in service, caps, chunks whose time has come; and the chunk that a job yields."""

from services.scheduler.core.chunks import chunk_budget, next_chunk_rows
from services.scheduler.core.estimates import model_rate, tokens_per_row
from services.scheduler.core.limits import Limits
from services.scheduler.core.offers import Ask, Work
from services.scheduler.core.records import Chunk, Job, LeaseKind
from services.scheduler.core.state import State
from tidemill.v1 import model_service_pb2


def open_models(ask: Ask) -> list[str]:
    """The worker's models that have work, did not fail, are not drained and stand below their cap."""
    by_model, limits = ask.state.in_flight.by_model, ask.limits
    return [
        model
        for model, model_state in ask.offer.models.items()
        if ask.state.accounts.order(model)
        and model_state != model_service_pb2.MODEL_STATE_FAILED
        and by_model.get(model, 0) < limits.max_leases_per_model
        and not is_drained(ask.state, model)
    ]


def is_drained(state: State, model: str) -> bool:
    """Whether an operator drained the model (I11)."""
    flags = state.models.get(model)
    return flags is not None and flags.drained


def full(state: State, limits: Limits) -> bool:
    """Whether the cap on all leases is reached."""
    return state.in_flight.total >= limits.max_leases


def tenant_open(ask: Ask, tenant: str) -> bool:
    """Whether the tenant stands below its cap."""
    return ask.state.in_flight.by_tenant.get(tenant, 0) < ask.limits.tenant_cap(tenant)


def job_cap(job: Job, limits: Limits) -> int:
    """Most leased chunks of the job: escalation may have raised it."""
    return limits.max_leases_per_job * job.parallelism


def job_open(ask: Ask, job: Job) -> bool:
    """Whether a ready job stands below its cap and has a chunk whose time has come."""
    if ask.state.in_flight.by_job.get(job.name, 0) >= job_cap(job, ask.limits):
        return False
    return job.next_cut < job.end or due_chunk(ask, job.name) is not None


def due_chunk(ask: Ask, job: str) -> Chunk | None:
    """The lowest returned chunk of the job that may be leased now."""
    chunks = ask.state.chunks.get(job, {})
    now_ns = max(ask.now_ns, ask.state.time_ns)
    for start in ask.state.waiting.get(job, ()):
        if chunks[start].ready_at_ns <= now_ns:
            return chunks[start]
    return None


def cut(ask: Ask, name: str) -> Work:
    """The chunk that an open job yields: one that came back, lowest first, else a fresh one."""
    chunk = due_chunk(ask, name)
    if chunk is not None:
        return Work(LeaseKind.CHUNK, name, chunk.failures + 1, chunk.start, chunk.rows)
    job = ask.state.jobs[name]
    budget = chunk_budget(ask.limits, model_rate(ask.state, job.model), tokens_per_row(ask.state, job))
    return Work(LeaseKind.CHUNK, name, 1, job.next_cut, next_chunk_rows(job.next_cut, job.end, budget))

"""What may be leased at all: models in service, caps, chunks whose time has come; and the chunk that a job yields."""

from services.scheduler.core.chunks import chunk_budget, dedicated_budget, next_chunk_rows
from services.scheduler.core.estimates import model_rate, tokens_per_row
from services.scheduler.core.limits import Limits
from services.scheduler.core.models import flags
from services.scheduler.core.modes import mode_of
from services.scheduler.core.offers import Ask, Work
from services.scheduler.core.records import Job, LeaseKind
from services.scheduler.core.state import State
from tidemill.v1 import job_pb2, model_service_pb2


def open_models(ask: Ask) -> list[str]:
    """The worker's models that have work, did not fail, are not drained (I11) and stand below their cap."""
    by_model, limits = ask.state.in_flight.by_model, ask.limits
    return [
        model
        for model, model_state in ask.offer.models.items()
        if ask.state.accounts.order(model)
        and model_state != model_service_pb2.MODEL_STATE_FAILED
        and by_model.get(model, 0) < limits.max_leases_per_model
        and not flags(ask.state, model).drained
    ]


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
    """Whether a ready job, which has a chunk whose time has come, stands below its cap."""
    return ask.state.in_flight.by_job.get(job.name, 0) < job_cap(job, ask.limits)


def cut(ask: Ask, name: str) -> Work:
    """The chunk that an open job yields: one that came back, lowest first, else a fresh one."""
    if waiting := ask.state.waiting.get(name):
        chunk = ask.state.chunks[name][waiting[0]]
        return Work(LeaseKind.CHUNK, name, chunk.start, chunk.rows)
    job = ask.state.jobs[name]
    return Work(LeaseKind.CHUNK, name, job.next_cut, next_chunk_rows(job.next_cut, job.end, _budget(ask, job)))


def _budget(ask: Ask, job: Job) -> int:
    """Most rows of a fresh chunk of the job."""
    rate, row_tokens = model_rate(ask.state, job.model), tokens_per_row(ask.state, job)
    if mode_of(job) != job_pb2.EXECUTION_MODE_DEDICATED:
        return chunk_budget(ask.limits, rate, row_tokens)
    load_seconds = ask.offer.load_seconds.get(job.model) or ask.limits.load_seconds
    return dedicated_budget(ask.limits, rate, row_tokens, load_seconds)

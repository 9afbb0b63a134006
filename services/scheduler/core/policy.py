"""Who runs next.

Closing tasks come first: they are short, need no engine and make finished work visible. Then rows: earliest deadline
first, then a model that the worker has loaded, then first come (by seal). Caps on leased chunks are checked in the same
step. The fair tier, swap costs and slack of scheduling.md belong here and nowhere else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.scheduler.core.chunks import next_chunk_rows
from services.scheduler.core.indices import ReadyKey
from services.scheduler.core.limits import Limits
from services.scheduler.core.records import LeaseKind
from services.scheduler.core.state import State
from tidemill.v1 import model_service_pb2

ModelState = model_service_pb2.ModelState


@dataclass(frozen=True, slots=True)
class Offer:
    """A worker that asks for work, and the state of each model that it can serve."""

    worker_id: str
    models: "Mapping[str, model_service_pb2.ModelState.ValueType]"


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work to lease."""

    kind: LeaseKind
    job: str
    attempt: int
    chunk_start: int = 0
    chunk_rows: int = 0


def next_work(state: State, offer: Offer, limits: Limits, now_ns: int) -> Work | None:
    """The work that is due next to this worker; None when there is none that it may have."""
    return _closing_task(state, now_ns) or _chunk(state, offer, limits)


def _closing_task(state: State, now_ns: int) -> Work | None:
    if not state.closing or state.closing[0][0] > now_ns:
        return None
    job = state.closing[0][2]
    return Work(LeaseKind.FINALISE, job, state.jobs[job].expect_ending().failures + 1)


def _chunk(state: State, offer: Offer, limits: Limits) -> Work | None:
    if state.in_flight.total >= limits.max_leases:
        return None
    best = min(_candidates(state, offer, limits), default=None)
    return _cut(state, best[-1], limits) if best else None


def _candidates(state: State, offer: Offer, limits: Limits) -> Iterator[tuple[int, bool, int, str]]:
    """(deadline, model not loaded, seal sequence, job) of each model and tenant's first job below its caps."""
    in_flight = state.in_flight
    for model, model_state in offer.models.items():
        failed = model_state == model_service_pb2.MODEL_STATE_FAILED
        if failed or in_flight.by_model[model] >= limits.max_leases_per_model:
            continue
        cold = model_state != model_service_pb2.MODEL_STATE_LOADED
        for tenant, keys in state.ready.tenants(model):
            if in_flight.by_tenant[tenant] >= limits.max_leases_per_tenant:
                continue
            key = _first_below_cap(state, keys, limits)
            if key:
                yield key[0], cold, key[1], key[2]


def _first_below_cap(state: State, keys: list[ReadyKey], limits: Limits) -> ReadyKey | None:
    """Passes over at most as many jobs as are at their cap, which the cap on all leases bounds."""
    by_job = state.in_flight.by_job
    return next((key for key in keys if by_job[key[2]] < limits.max_leases_per_job), None)


def _cut(state: State, name: str, limits: Limits) -> Work:
    """A chunk that came back, lowest first, else a fresh one."""
    waiting = state.waiting.get(name)
    if waiting:
        chunk = state.chunks[name][waiting[0]]
        return Work(LeaseKind.CHUNK, name, chunk.failures + 1, chunk.start, chunk.rows)
    job = state.jobs[name]
    rows = next_chunk_rows(job.next_cut, job.end, limits.chunk_rows)
    return Work(LeaseKind.CHUNK, name, 1, job.next_cut, rows)

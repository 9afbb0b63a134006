"""Desks, offers and shorthands for tests of the policy: rows of five tokens, a second each."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from services.scheduler.core.limits import Limits
from services.scheduler.core.offers import Offer
from tests.scheduler import builders
from tests.scheduler.builders import LOADED
from tests.scheduler.desk import Desk
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2, model_service_pb2

COLD = model_service_pb2.MODEL_STATE_COLD
LOADING = model_service_pb2.MODEL_STATE_LOADING
BROKEN = model_service_pb2.MODEL_STATE_FAILED

MODELS: tuple[str, ...] = ("tiny", "other", "third")
TENANTS: tuple[str, ...] = ("acme", "beta", "corp")
CLASSES = (job_pb2.SERVICE_CLASS_URGENT, job_pb2.SERVICE_CLASS_STANDARD, job_pb2.SERVICE_CLASS_FLEX)


def queue(desk: Desk, spec: records_pb2.JobSpec, rows: int) -> str:
    """Queue a job of rows that are expected to take five tokens, as they do."""
    desk.create(spec)
    desk.open_writer(spec.name)
    request = builders.segment(spec.name, 0, rows)
    request.segment.text_bytes = 12 * rows
    request.segment.max_output_tokens = 2 * rows
    desk.commit_segment(request)
    desk.seal(builders.seal(spec.name, rows))
    return spec.name


def answer(desk: Desk, lease: pb.Lease) -> None:
    """Commit the whole chunk in one part, a second a row."""
    request = builders.part(lease, set(range(lease.chunk_rows)))
    request.busy_seconds = lease.chunk_rows
    desk.commit(request)


def teach(desk: Desk, model: str, number: int) -> None:
    """Let the model be known for five tokens per second, by a job that is done afterwards."""
    queue(desk, builders.spec(number, tenant="teacher", model=model, deadline=10**9), 30)
    offer = builders.offer("teacher", **{model: LOADED})
    while True:
        (lease,) = desk.lease(1, offer)
        if lease.kind == pb.LEASE_KIND_FINALISE:
            desk.finish(lease)
            return
        answer(desk, lease)


def drain(desk: Desk, model: str, drained: bool = True) -> None:
    desk.change_model(pb.ChangeModelRequest(model=model, drained=drained))


@st.composite
def desks(draw: st.DrawFn) -> Desk:
    """Up to a dozen jobs in some state, over models that are known or not."""
    limits = Limits(
        chunk_rows=draw(st.integers(1, 20)),
        chunk_seconds=draw(st.sampled_from([2.0, 60.0])),
        max_leases=draw(st.integers(1, 12)),
        max_leases_per_tenant=draw(st.integers(1, 8)),
        max_leases_per_model=draw(st.integers(1, 8)),
        max_leases_per_job=draw(st.integers(1, 4)),
        owed_seconds=draw(st.sampled_from([1.0, 10.0, 300.0])),
    )
    desk = Desk(Limits(chunk_rows=10))
    for number, model in enumerate(draw(st.sets(st.sampled_from(MODELS)))):
        teach(desk, model, 100 + number)
    desk.limits = limits
    for number in range(1, draw(st.integers(1, 10)) + 1):
        spec = builders.spec(
            number,
            tenant=draw(st.sampled_from(TENANTS)),
            model=draw(st.sampled_from(MODELS)),
            deadline=1000 + draw(st.sampled_from([10, 60, 100, 130, 600, 3600, 100_000])),
        )
        spec.service_class = draw(st.sampled_from(CLASSES))
        queue(desk, spec, draw(st.sampled_from([1, 7, 60, 400])))
    return desk


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    states = st.sampled_from([LOADED, LOADED, COLD, COLD, LOADING, BROKEN])
    models = draw(st.dictionaries(st.sampled_from(MODELS), states, min_size=1))
    loads = draw(st.dictionaries(st.sampled_from(MODELS), st.sampled_from([0.5, 20.0, 200.0])))
    engines = dict.fromkeys(MODELS, draw(st.integers(1, 4)))
    return Offer("w1", models, loads, engines)


QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

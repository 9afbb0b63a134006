"""`ExplainJob`: the first thing in the way of a job's next chunk, in the order in which the policy looks at them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil

from services.scheduler.core.eligible import full, job_cap
from services.scheduler.core.models import flags
from services.scheduler.core.offers import Ask, Offer
from services.scheduler.core.prospects import Backlog
from services.scheduler.core.records import Job
from services.scheduler.core.times import SECOND
from services.scheduler.core.urgency import urgent_job
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2

Cause = job_service_pb2.WaitCause
Answer = job_service_pb2.ExplainJobResponse

COUNTED_AHEAD = 1000
"""Most jobs ahead that are counted one by one."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a job waits, and what would change that."""

    cause: "job_service_pb2.WaitCause.ValueType"
    message: str
    remedies: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Scene:
    """The job and all that decides on it."""

    backlog: Backlog
    job: Job

    @property
    def ask(self) -> Ask:
        """The question of a worker that has the job's model loaded."""
        loaded = {self.job.model: model_service_pb2.MODEL_STATE_LOADED}
        offer = Offer("", loaded, engines=self.backlog.capacity.by_model)
        return Ask(self.backlog.state, offer, self.backlog.limits, self.backlog.now_ns)


def explain(backlog: Backlog, job: Job) -> Answer:
    """What the job waits for; the public job is left to the caller."""
    scene = Scene(backlog, job)
    reason = next(found for look in _LOOKS if (found := look(scene)) is not None)
    ahead = list(islice(_ahead(scene), COUNTED_AHEAD)) if job.name in backlog.state.ready else []
    return Answer(
        cause=reason.cause,
        message=reason.message,
        remedies=reason.remedies,
        jobs_ahead=len(ahead),
        rows_ahead=sum(backlog.state.jobs[name].missing for name in ahead),
        chunks_leased=backlog.state.in_flight.by_job.get(job.name, 0),
        chunks_cap=job_cap(job, backlog.limits),
    )


def _ahead(scene: Scene) -> Iterator[str]:
    """Ready jobs of the same model that are due before: of tenants that had less, and earlier ones of its tenant."""
    state, job = scene.backlog.state, scene.job
    for _, tenant in state.accounts.order(job.model):
        for _, _, name in state.ready.tenant_jobs(job.model, tenant):
            if name == job.name:
                return
            yield name


def _over(scene: Scene) -> Reason | None:
    job = scene.job
    state_name = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
    if job.terminal:
        return Reason(Cause.WAIT_CAUSE_UNSPECIFIED, f"the job has ended as {state_name}")
    if job.receiving:
        message = f"it receives rows ({job.end} so far) and is not sealed"
        return Reason(Cause.WAIT_CAUSE_ROWS, message, ["append the rest and seal the job"])
    if job.ending is not None or job.state == job_pb2.JOB_STATE_CANCELLING:
        return Reason(Cause.WAIT_CAUSE_CLOSING, "its rows are done or given up; its output is being closed")
    if job.state == job_pb2.JOB_STATE_PAUSED:
        return Reason(Cause.WAIT_CAUSE_PAUSED, "it is paused", ["resume it"])
    return None


def _running(scene: Scene) -> Reason | None:
    job, state = scene.job, scene.backlog.state
    leased = state.in_flight.by_job.get(job.name, 0)
    if not leased:
        return None
    cap = job_cap(job, scene.backlog.limits)
    if leased >= cap and job.name in state.ready:
        message = f"{leased} of its chunks are at workers, as many as one job may have"
        return Reason(Cause.WAIT_CAUSE_JOB_CAP, message, ["allow more_parallelism in its escalation"])
    return Reason(Cause.WAIT_CAUSE_UNSPECIFIED, f"it runs: {leased} of its chunks are at workers")


def _no_worker(scene: Scene) -> Reason | None:
    model, capacity = scene.job.model, scene.backlog.capacity
    if capacity.by_model.get(model):
        return None
    if model in capacity.load_seconds:
        message = f"no worker could load model {model}"
        return Reason(Cause.WAIT_CAUSE_MODEL_LOAD, message, ["see the model's message in ListModels"])
    message = f"no live worker offers model {model}"
    return Reason(Cause.WAIT_CAUSE_NO_WORKER, message, ["start a worker that offers it, or check the running ones"])


def _drained(scene: Scene) -> Reason | None:
    if not flags(scene.backlog.state, scene.job.model).drained:
        return None
    return Reason(
        Cause.WAIT_CAUSE_MODEL_DRAINED, f"model {scene.job.model} is drained", ["undrain the model (an operator's key)"]
    )


def _caps(scene: Scene) -> Reason | None:
    state, limits, job = scene.backlog.state, scene.backlog.limits, scene.job
    total, tenant = state.in_flight.total, state.in_flight.by_tenant.get(job.tenant, 0)
    model = state.in_flight.by_model.get(job.model, 0)
    remedy = ["wait for a chunk to end"]
    if full(state, limits):
        return Reason(Cause.WAIT_CAUSE_GLOBAL_CAP, f"{total} chunks are at workers, as many as may be", remedy)
    if tenant >= limits.tenant_cap(job.tenant):
        message = f"{tenant} chunks of your jobs are at workers, as many as a tenant may have"
        return Reason(Cause.WAIT_CAUSE_TENANT_CAP, message, [*remedy, "pause another of your jobs"])
    if model >= limits.max_leases_per_model:
        message = f"{model} chunks of model {job.model} are at workers, as many as a model may have"
        return Reason(Cause.WAIT_CAUSE_MODEL_CAP, message, remedy)
    return None


def _backoff(scene: Scene) -> Reason | None:
    job, ask = scene.job, scene.ask
    if job.next_cut < job.end or job.name in ask.state.waiting:
        return None
    chunks = ask.state.chunks.get(job.name, {})
    times = [chunk.ready_at_ns for chunk in chunks.values() if not chunk.fence]
    seconds = max(0, min(times, default=ask.now_ns) - ask.now_ns) / SECOND
    return Reason(Cause.WAIT_CAUSE_BACKOFF, f"its last chunks failed and are tried again in {ceil(seconds)} s")


def _urgent(scene: Scene) -> Reason | None:
    first = urgent_job(scene.ask, [scene.job.model])
    if first is None or first == scene.job.name:
        return None
    message = "jobs whose deadlines are near are served first"
    return Reason(Cause.WAIT_CAUSE_URGENT_JOBS, message, ["set an earlier complete_by_time"])


def _tenant_order(scene: Scene) -> Reason | None:
    keys = scene.backlog.state.ready.tenant_jobs(scene.job.model, scene.job.tenant)
    if not keys or keys[0][2] == scene.job.name:
        return None
    message = "other jobs of yours for this model have earlier deadlines"
    return Reason(Cause.WAIT_CAUSE_TENANT_ORDER, message, ["set an earlier complete_by_time", "pause the others"])


def _tenant_share(scene: Scene) -> Reason | None:
    order = scene.backlog.state.accounts.order(scene.job.model)
    place = next((place for place, (_, tenant) in enumerate(order) if tenant == scene.job.tenant), 0)
    if not place:
        return None
    ahead = order[place][0] - order[0][0]
    message = f"{place} tenants are served first: you have had {ahead} weighted tokens more than the first of them"
    return Reason(Cause.WAIT_CAUSE_TENANT_SHARE, message, ["choose a higher service_class", "wait for their work"])


def _model_turn(scene: Scene) -> Reason | None:
    model, capacity = scene.job.model, scene.backlog.capacity
    if capacity.loaded.get(model):
        return None
    seconds = capacity.load_time(model)
    message = f"model {model} is not loaded (about {seconds:.0f} s to load); its workers load it, or serve others first"
    return Reason(Cause.WAIT_CAUSE_MODEL_TURN, message, ["pin the model (an operator's key)"])


def _free_slot(_scene: Scene) -> Reason:
    return Reason(Cause.WAIT_CAUSE_FREE_SLOT, "it is next, as soon as a worker has room", ["start another worker"])


_LOOKS: tuple[Callable[[Scene], Reason | None], ...] = (
    _over,
    _running,
    _no_worker,
    _drained,
    _caps,
    _backoff,
    _urgent,
    _tenant_order,
    _tenant_share,
    _model_turn,
    _free_slot,
)

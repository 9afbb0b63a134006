"""Whether a deadline can be promised: every firm deadline, and the new one, must hold when work runs in their order.

The check is that of earliest-deadline-first on the capacity there is: for each deadline, the work due by then must fit
into the time until then, at the 90th percentile, with model loads and a headroom taken off. A job of a model whose rate
nobody knows yet is taken without a promise about its end.
"""

from collections import Counter
from dataclasses import dataclass, replace

from services.scheduler.core.demand import STEP_NS
from services.scheduler.core.estimates import expected_row_tokens, rate_spread
from services.scheduler.core.modes import chosen_mode, mode_facts
from services.scheduler.core.prospects import FAR_SECONDS, Backlog, Eta, Rates, Work, work_of
from services.scheduler.core.records import ExecutionMode, Job
from services.scheduler.core.times import SECOND, from_timestamp, to_timestamp
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2

Due = list[tuple[int, float]]
"""(time from now in ns, engine-seconds due by then), rising."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What admission thinks of a piece of work.

    Attributes:
        feasible: its deadline and all firm ones hold; True as well where `eta` is None.
        earliest_ns: the earliest deadline that would be feasible; 0 where that cannot be told.
        eta: its likely end; None where it cannot be told.
    """

    feasible: bool
    earliest_ns: int
    eta: Eta | None


@dataclass(frozen=True, slots=True)
class Admission:
    """On what terms a job is sealed: `digest` (hex) names the weights that have to answer, empty where unknown, and
    `mode` is how rows reach an engine."""

    at_risk: bool = False
    digest: str = ""
    eta: Eta | None = None
    mode: ExecutionMode = job_pb2.EXECUTION_MODE_SHARED

    def describe(self, sealed: ledger_pb2.JobSealed) -> None:
        """Write the terms into the event."""
        sealed.admitted_at_risk = self.at_risk
        sealed.model_digest = self.digest
        sealed.execution_mode = self.mode
        if self.eta is not None:
            sealed.eta_p50_time.CopyFrom(to_timestamp(self.eta.p50_ns))
            sealed.eta_p90_time.CopyFrom(to_timestamp(self.eta.p90_ns))


def admit(backlog: Backlog, job: Job) -> Admission:
    """Judge a job that is about to be sealed.

    Raises:
        TidemillError: DEADLINE_INFEASIBLE, unless the owner takes the risk.
    """
    verdict = judge(backlog, prepared(backlog, job))
    if not verdict.feasible and not (job.spec.accept_at_risk or job.admitted_at_risk):
        raise infeasible(job.name, verdict, job.deadline_ns)
    digest = backlog.capacity.digests.get(job.model, "")
    mode = chosen_mode(mode_facts(backlog.state, backlog.capacity, job), backlog.limits)
    return Admission(not verdict.feasible, digest, verdict.eta, mode)


def readmit(backlog: Backlog, job: Job, updated: ledger_pb2.JobUpdated, *, accepts_risk: bool) -> None:
    """Judge the deadline that a sealed job is about to get, and note in the event whether it is at risk.

    Raises:
        TidemillError: DEADLINE_INFEASIBLE, unless the owner takes the risk.
    """
    deadline_ns = from_timestamp(updated.complete_by_time)
    if job.seal is None or (deadline_ns, updated.admitted_at_risk) == (job.deadline_ns, job.admitted_at_risk):
        return
    verdict = judge(backlog, replace(work_of(job, backlog.limits), deadline_ns=deadline_ns))
    if not verdict.feasible and not accepts_risk:
        raise infeasible(job.name, verdict, deadline_ns)
    updated.admitted_at_risk = not verdict.feasible


def prepared(backlog: Backlog, job: Job) -> Work:
    """A job as admission sees it: a receiving one has no estimate of its own yet."""
    if job.row_tokens:
        return work_of(job, backlog.limits)
    p50, p90 = expected_row_tokens(backlog.state.pace(job.model), job)
    return work_of(replace(job, row_tokens=p50, row_tokens_p90=p90), backlog.limits)


def judge(backlog: Backlog, work: Work) -> Verdict:
    """Judge work that is not among the firm claims yet."""
    eta = backlog.eta(work)
    if eta is None:
        return Verdict(True, 0, None)
    own = _tokens_seconds(backlog, work)
    everything, same_model = _due(backlog, work)
    earliest = max(
        _earliest(backlog, own, everything, _usable(backlog, None)),
        _earliest(backlog, own, same_model, _usable(backlog, work.model)),
        _alone(backlog, work, own),
    )
    return Verdict(earliest <= work.deadline_ns, earliest, eta)


def _alone(backlog: Backlog, work: Work, own: float) -> int:
    """No deadline is earlier than what the job takes with all engines to itself."""
    usable = backlog.width(work.model, own) * (1 - backlog.limits.admission_headroom)
    seconds = backlog.capacity.first_load(work.model) + own / usable
    return backlog.now_ns + int(min(seconds, FAR_SECONDS) * SECOND)


def _tokens_seconds(backlog: Backlog, work: Work) -> float:
    """Engine-seconds of the work at the 90th percentile."""
    spread = rate_spread(backlog.state.pace(work.model))
    return work.tokens_p90 / Rates(backlog.state).rate(work.model) * spread


def _earliest(backlog: Backlog, own: float, due: Due, usable: float) -> int:
    """The earliest deadline at which `own` engine-seconds fit in among those that are due, `usable` a second."""
    pace = SECOND / usable
    first, before = 0, 0.0
    for place, (time, seconds) in enumerate(due):
        # Claims of this step and later ones have to wait for the new work, too, if that goes before them.
        if (seconds + own) * pace > time:
            first, before = place + 1, seconds
    earliest = due[first - 1][0] + STEP_NS if first else 0
    for time, seconds in due[first:]:
        if (before + own) * pace < time:
            break
        before = seconds
    return backlog.now_ns + max(earliest, int(min((before + own) * pace, FAR_SECONDS * SECOND)))


def _due(backlog: Backlog, work: Work) -> tuple[Due, Due]:
    """The firm work of others by the steps to come: of all models, and of the work's own."""
    curve = backlog.state.demand.firm
    rates = Rates(backlog.state)
    own = backlog.state.demand.claims.get(work.job)
    everything, same_model = Due(), Due()
    total = same = 0.0
    for step in curve.steps_from(backlog.now_ns // STEP_NS + 1):
        tokens = Counter(curve.p90[step])
        if own is not None and own.firm and own.step == step:
            tokens[own.model] -= own.tokens.p90
        total += sum(count / rates.rate(name) for name, count in tokens.items())
        same += tokens.get(work.model, 0) / rates.rate(work.model)
        time = step * STEP_NS - backlog.now_ns
        everything.append((time, total))
        same_model.append((time, same))
    return everything, same_model


def _usable(backlog: Backlog, model: str | None) -> float:
    """Engine-seconds a second that may be promised: without the headroom and the share that loading models takes."""
    capacity, limits = backlog.capacity, backlog.limits
    engines = capacity.engines if model is None else capacity.by_model[model]
    models = backlog.state.demand.firm.models
    load = max((capacity.load_time(name) for name in models), default=0.0) if len(models) > 1 else 0.0
    return engines * (1 - limits.admission_headroom) * limits.owed_seconds / (limits.owed_seconds + load)


def infeasible(job: str, verdict: Verdict, deadline_ns: int) -> TidemillError:
    """The refusal of a deadline."""
    earliest = to_timestamp(verdict.earliest_ns).ToJsonString()
    asked = to_timestamp(deadline_ns).ToJsonString()
    return TidemillError(
        Reason.DEADLINE_INFEASIBLE,
        f"complete_by_time {asked} of job {job} cannot be promised; the earliest that can is {earliest}: "
        "give that one with UpdateJob, or say accept_at_risk, and seal again",
        metadata={"job": job, "complete_by_time": asked, "earliest_feasible_time": earliest},
    )

"""The fair tier and its valve: whose turn it is, and when another model is worth its loading."""

from dataclasses import dataclass

from services.scheduler.core.eligible import job_open, tenant_open
from services.scheduler.core.estimates import GUESSED_RATE, model_rate
from services.scheduler.core.indices import ReadyKey
from services.scheduler.core.offers import Ask
from services.scheduler.core.urgency import slack_ns

FEASIBLE_LOOKS = 16
"""Jobs of a tenant that one choice tries in search of one that can still hold its deadline."""


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """The tenant that is next on a model, and its job."""

    tokens: int
    tenant: str
    model: str
    job: str


def fair_job(ask: Ask, models: list[str]) -> str | None:
    """The job whose turn it is: of a resident model, unless the valve opens or there is none."""
    turns = [turn for model in models if (turn := turn_of(ask, model))]
    here = min((turn for turn in turns if ask.offer.is_resident(turn.model)), default=None)
    elsewhere = [turn for turn in turns if not ask.offer.is_resident(turn.model)]
    if here is not None:
        owed = [turn for turn in elsewhere if _owed_more(ask, here, turn)]
        return min(owed).job if owed else here.job
    # An idle worker goes where fewest are, so that workers spread over the models instead of all loading the same.
    there = min(elsewhere, key=lambda turn: (ask.state.in_flight.by_model.get(turn.model, 0), turn), default=None)
    return there.job if there else None


def turn_of(ask: Ask, model: str) -> Turn | None:
    """The tenant that had least among those with an eligible chunk of the model."""
    for tokens, tenant in ask.state.accounts.order(model):
        if tenant_open(ask, tenant):
            job = _job_of(ask, ask.state.ready.tenant_jobs(model, tenant))
            if job is not None:
                return Turn(tokens, tenant, model, job)
    return None


def _job_of(ask: Ask, keys: list[ReadyKey]) -> str | None:
    """The earliest deadline among those that can still be held, else the earliest.

    Passes over at most as many jobs as are at their cap, which the cap on all leases bounds.
    """
    fallback: str | None = None
    looks = 0
    for _, _, name in keys:
        job = ask.state.jobs[name]
        if not job_open(ask, job):
            continue
        if slack_ns(ask, job) >= 0:
            return name
        fallback = fallback or name
        looks += 1
        if looks == FEASIBLE_LOOKS:
            break
    return fallback


def _owed_more(ask: Ask, here: Turn, there: Turn) -> bool:
    """Whether what the other tenant is owed outweighs the loading of its model.

    Each worker that serves the model already raises the bar: they are paying the debt.
    """
    rate = model_rate(ask.state, there.model) or GUESSED_RATE
    owed_seconds = (here.tokens - there.tokens) * ask.limits.standard_weight / rate
    serving = ask.state.in_flight.by_model.get(there.model, 0)
    loads = ask.load_seconds(there.model) / ask.limits.load_seconds
    return owed_seconds > ask.limits.owed_seconds * loads * (1 + serving)

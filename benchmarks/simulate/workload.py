"""Jobs as traces show them, made up by formula from a seed.

Per ServeGen (NSDI'26) and BurstGPT: gamma inter-arrivals that come in bursts, prompt lengths from a Pareto and a
lognormal mixed, exponential outputs, and a tenant that causes most of the work. No public trace describes batch
jobs: their sizes, windows and models are made up here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

ARRIVAL_SPREAD = 3.0
"""Coefficient of variation of the time between jobs: above 1 they come in bursts."""

PARETO_SHARE = 0.1
"""Prompts from the Pareto tail; the others are lognormal."""

MAX_PROMPT_TOKENS = 8192
MAX_OUTPUT_TOKENS = 2048

MINUTE = 60.0
HOUR = 3600.0

WINDOWS = (HOUR, 6 * HOUR, 24 * HOUR)
WINDOW_SHARES = (0.5, 0.3, 0.2)
PATIENCE = 3.0
"""Nobody asks for a window under so many times what the job takes on an empty service."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """How one tenant behaves: its share of the jobs, and their mean work in engine-seconds."""

    name: str
    share: float
    mean_seconds: float
    small: bool = True


@dataclass(frozen=True, slots=True)
class Model:
    """An engine's speed in tokens per second, and its share of the jobs."""

    name: str
    rate: float
    share: float


TENANTS = (
    Tenant("heavy", 0.45, 1000.0, small=False),
    *(Tenant(f"small-{number:02}", 0.055, 240.0) for number in range(10)),
)

CALIBRATION = Tenant("calibration", 0.0, 0.0, small=False)

MODELS = (
    Model("m-1", 4000.0, 0.4),
    Model("m-2", 2500.0, 0.3),
    Model("m-3", 1500.0, 0.2),
    Model("m-4", 800.0, 0.1),
)


Lengths = npt.NDArray[np.int64]
"""Tokens by row, or running sums of them."""

Draft = tuple[Tenant, Model, Lengths, Lengths]
"""A job without its times."""


@dataclass(frozen=True, slots=True)
class SimJob:
    """One job: its rows' true lengths are known here and nowhere else.

    Attributes:
        arrival, deadline: seconds since the start.
        prompts, outputs: running sums of tokens over the rows; one longer than the rows, from 0.
        seconds: engine-seconds of the whole job.
    """

    number: int
    tenant: Tenant
    model: Model
    arrival: float
    deadline: float
    prompts: Lengths
    outputs: Lengths

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.prompts) - 1

    @property
    def seconds(self) -> float:
        """Engine-seconds of the whole job."""
        return self.tokens(0, self.rows) / self.model.rate

    def tokens(self, start: int, end: int) -> int:
        """Tokens, prompt and output, of these rows."""
        return int(self.prompts[end] - self.prompts[start] + self.outputs[end] - self.outputs[start])


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs by arrival, and the models that they ask for."""

    jobs: Sequence[SimJob]
    models: Sequence[Model] = field(default=MODELS)

    @property
    def seconds(self) -> float:
        """Engine-seconds of everything."""
        return sum(job.seconds for job in self.jobs)


class Source(Protocol):
    """Where lengths of rows and gaps between jobs come from."""

    def rows(self, chance: np.random.Generator, tokens: float) -> tuple[Lengths, Lengths]:
        """Prompt and output lengths of a job of about so many tokens; at least one row."""
        ...

    def gaps(self, chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
        """Times between jobs, in any unit."""
        ...


class Formula:
    """Lengths and gaps by formula; see the module."""

    def rows(self, chance: np.random.Generator, tokens: float) -> tuple[Lengths, Lengths]:
        """Each job has its own mean prompt and answer."""
        prompt_mean = chance.lognormal(np.log(400.0), 0.5)
        output_mean = chance.lognormal(np.log(180.0), 0.5)
        rows = max(1, round(tokens / (prompt_mean + output_mean)))
        lognormal = chance.lognormal(np.log(prompt_mean) - 0.32, 0.8, rows)
        pareto = prompt_mean * 0.6 * (1 + chance.pareto(2.5, rows))
        prompts = np.where(chance.random(rows) < PARETO_SHARE, pareto, lognormal)
        outputs = chance.exponential(output_mean, rows)
        return (
            np.clip(prompts, 1, MAX_PROMPT_TOKENS).astype(np.int64),
            np.clip(outputs, 1, MAX_OUTPUT_TOKENS).astype(np.int64),
        )

    def gaps(self, chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
        """Gamma, in bursts."""
        shape = 1 / ARRIVAL_SPREAD**2
        return chance.gamma(shape, 1 / shape, count)


def generate(seed: int, load: float, hours: float, slots: int, source: Source | None = None) -> Workload:
    """Jobs whose work comes to `load` times what `slots` engines do in `hours`, without loading models."""
    source = source or Formula()
    chance = np.random.Generator(np.random.PCG64(seed))
    wanted = load * slots * hours * HOUR
    drafts: list[Draft] = []
    total = 0.0
    while total < wanted:
        tenant = TENANTS[chance.choice(len(TENANTS), p=_shares([each.share for each in TENANTS]))]
        model = MODELS[chance.choice(len(MODELS), p=_shares([each.share for each in MODELS]))]
        seconds = min(chance.lognormal(np.log(tenant.mean_seconds) - 0.5, 1.0), 20 * tenant.mean_seconds)
        # The last job is what is missing, or one long one would make a short run another load.
        seconds = min(seconds, wanted - total)
        prompts, outputs = source.rows(chance, seconds * model.rate)
        total += float(prompts.sum() + outputs.sum()) / model.rate
        drafts.append((tenant, model, prompts, outputs))
    times = np.cumsum(source.gaps(chance, len(drafts)))
    arrivals = times * (hours * HOUR / times[-1])
    jobs = [
        _job(chance, number, float(arrival), draft, slots)
        for number, (arrival, draft) in enumerate(zip(arrivals, drafts, strict=True), 1)
    ]
    return Workload(jobs)


def _shares(values: Sequence[float]) -> npt.NDArray[np.float64]:
    weights = np.asarray(values)
    return weights / weights.sum()


def _job(chance: np.random.Generator, number: int, arrival: float, draft: Draft, slots: int) -> SimJob:
    tenant, model, prompts, outputs = draft
    seconds = float(prompts.sum() + outputs.sum()) / model.rate
    alone = alone_seconds(seconds, slots)
    window = next(
        (each for each in WINDOWS[chance.choice(len(WINDOWS), p=WINDOW_SHARES) :] if each >= PATIENCE * alone),
        max(WINDOWS[-1], PATIENCE * alone),
    )
    return SimJob(number, tenant, model, arrival, arrival + window, _sums(prompts), _sums(outputs))


def _sums(values: Lengths) -> Lengths:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(values)))


def alone_seconds(seconds: float, slots: int, chunk_seconds: float = MINUTE) -> float:
    """What work of so many engine-seconds takes on an empty service with its model loaded."""
    chunks = max(1, -(-seconds // chunk_seconds))
    return seconds / min(slots, chunks)


def calibration_job(model: Model, number: int) -> SimJob:
    """A job of one usual row, that teaches the service a model's speed."""
    sums = np.array([0, 400]), np.array([0, 180])
    return SimJob(number, CALIBRATION, model, 0.0, HOUR, *sums)

"""What commits teach about a model: how fast its engines are and how long its rows get."""

from dataclasses import dataclass, replace
from math import exp, log

from services.scheduler.core.records import Job, Part

MEMORY_SECONDS = 600.0
"""Busy seconds after which an observation weighs 1/e: a model's mix of rows changes over minutes, not over parts."""

MEMORY_ROWS = 2000.0
"""The same for what is learned a row at a time."""

COMMITS_KNOWN = 3
"""After so many commits a model's rate counts as known (scheduling.md, 2)."""

BYTES_PER_TOKEN = 4.0
"""Text bytes of a token before any is measured: the usual figure for English."""


@dataclass(frozen=True, slots=True)
class ModelPace:
    """Averages over the latest commits of one model.

    Attributes:
        commits: parts with a measured time.
        tokens_per_second: prompt and output tokens per second of busy engine.
        noise: mean square of the logarithm of a part's rate over the average; 0.1 is about a third up or down.
        output_per_row: tokens of an answer.
        bytes_per_token: text bytes of a prompt token, chat template included.
        etas: succeeded jobs that had an ETA, and `etas_kept`: those that ended by its 90th percentile.
        busy_seconds, rows: how much the averages rest on, at most the memory.
    """

    commits: int = 0
    tokens_per_second: float = 0.0
    noise: float = 0.0
    output_per_row: float = 0.0
    bytes_per_token: float = BYTES_PER_TOKEN
    busy_seconds: float = 0.0
    rows: float = 0.0
    etas: int = 0
    etas_kept: int = 0

    @property
    def rate(self) -> float | None:
        """Tokens per second of busy engine; None until three commits."""
        return self.tokens_per_second if self.commits >= COMMITS_KNOWN else None


def learn(pace: ModelPace, job: Job, part: Part, busy_seconds: float) -> ModelPace:
    """The averages after a part that took `busy_seconds` of engine (0: not measured)."""
    tally = part.tally
    answered = tally.succeeded
    if not answered or job.end <= 0:
        return pace
    weight = _weight(pace.rows, answered, MEMORY_ROWS)
    output = _blend(pace.output_per_row, tally.output_tokens / answered, weight)
    density = pace.bytes_per_token
    if job.text_bytes and tally.prompt_tokens:
        density = _blend(density, job.text_bytes / job.end * answered / tally.prompt_tokens, weight)
    rows = min(pace.rows + answered, MEMORY_ROWS)
    commits, rate, noise, busy = pace.commits, pace.tokens_per_second, pace.noise, pace.busy_seconds
    tokens = tally.prompt_tokens + tally.output_tokens
    if busy_seconds > 0 and tokens:
        commits, rate, noise, busy = _measured(pace, tokens / busy_seconds, busy_seconds)
    return replace(
        pace,
        commits=commits,
        tokens_per_second=rate,
        noise=noise,
        output_per_row=output,
        bytes_per_token=density,
        busy_seconds=busy,
        rows=rows,
    )


def score(pace: ModelPace, job: Job, end_ns: int) -> ModelPace:
    """The record of ETAs after a job ended at `end_ns`; unchanged where it had none."""
    if not job.promised_ns:
        return pace
    return replace(pace, etas=pace.etas + 1, etas_kept=pace.etas_kept + (end_ns <= job.promised_p90_ns))


def _measured(pace: ModelPace, rate: float, busy_seconds: float) -> tuple[int, float, float, float]:
    weight = _weight(pace.busy_seconds, busy_seconds, MEMORY_SECONDS)
    # Weighted by time the average is all tokens over all seconds: a part in which the engine starved counts as long as
    # it starved, not more.
    average = rate if not pace.commits else _blend(pace.tokens_per_second, rate, weight)
    deviation = log(rate / average) ** 2 if pace.commits else 0.0
    noise = _blend(pace.noise, min(deviation, 4.0), weight)
    return pace.commits + 1, average, noise, min(pace.busy_seconds + busy_seconds, MEMORY_SECONDS)


def _weight(known: float, more: float, memory: float) -> float:
    """A plain mean until the memory is full, an exponential one afterwards."""
    return max(more / (known + more), 1 - exp(-more / memory))


def _blend(old: float, new: float, weight: float) -> float:
    return old + (new - old) * weight

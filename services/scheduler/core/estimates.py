"""How much work a job still is. The unit is the engine-second: tokens over the tokens per second of busy engine.

A job's tokens per row begin as a guess (its text, its limit, what the model's rows have taken) and give way to what its
own rows took. The 90th percentile covers what is not known of the mean, not the spread of single rows: rows are many.
"""

from math import exp, sqrt

from services.scheduler.core.paces import BYTES_PER_TOKEN, ModelPace
from services.scheduler.core.records import Job
from services.scheduler.core.state import State

DEFAULT_PROMPT_TOKENS = 256
DEFAULT_OUTPUT_TOKENS = 128
"""A row of which nothing is known."""

GUESSED_RATE = 1000.0
"""Tokens a second where nothing has been measured at all: a small model on one small GPU."""

PRIOR_ROWS = 20.0
"""The first guess weighs as much as so many rows."""

PRIOR_SPREAD = 0.5
"""Standard error of a job's mean output before any of its rows is done, relative: jobs of one model differ so much."""

Z90 = 1.2816
"""90th percentile of the normal distribution."""


def model_rate(state: State, model: str) -> float | None:
    """Tokens per second of busy engine; None until three commits."""
    return state.pace(model).rate


def expected_row_tokens(pace: ModelPace, job: Job) -> tuple[int, int]:
    """(p50, p90) of the mean tokens, prompt and output, of the job's rows without a result; at least 1."""
    prompt = _prompt_per_row(pace, job)
    output = _output_per_row(pace, job)
    return row_tokens(prompt, output, job.results)


def row_tokens(prompt: float, output: float, known_rows: int) -> tuple[int, int]:
    """(p50, p90) of the tokens of a row, where `known_rows` of the job's own rows stand behind `output`."""
    rest = PRIOR_SPREAD * sqrt(PRIOR_ROWS / (PRIOR_ROWS + known_rows))
    p50 = max(1, round(prompt + output))
    return p50, max(p50, round(prompt + output * (1 + Z90 * rest)))


def _prompt_per_row(pace: ModelPace, job: Job) -> float:
    guess = float(DEFAULT_PROMPT_TOKENS)
    if job.end and job.text_bytes:
        guess = job.text_bytes / job.end / (pace.bytes_per_token or BYTES_PER_TOKEN)
    return _shrunk(guess, job.tally.prompt_tokens, job.tally.succeeded)


def _output_per_row(pace: ModelPace, job: Job) -> float:
    limit = job.max_output_tokens / job.end if job.end and job.max_output_tokens else 0.0
    return _shrunk(output_guess(pace, limit), job.tally.output_tokens, job.tally.succeeded)


def output_guess(pace: ModelPace, limit: float) -> float:
    """Tokens of an answer before any of the job is known; `limit` is the mean of the rows' limits, 0 without."""
    usual = pace.output_per_row if pace.rows else 0.0
    if not usual:
        return limit or DEFAULT_OUTPUT_TOKENS
    return min(usual, limit) if limit else usual


def _shrunk(guess: float, total: int, rows: int) -> float:
    return (guess * PRIOR_ROWS + total) / (PRIOR_ROWS + rows)


def tokens_per_row(state: State, job: Job) -> int:
    """Expected tokens, prompt and output, of a row of the job that has no result."""
    return job.row_tokens or expected_row_tokens(state.pace(job.model), job)[0]


def rate_spread(pace: ModelPace) -> float:
    """Factor from the median to the 90th percentile of the time that a long run of tokens takes.

    Single parts are noisier than their sum; a third of a part's deviation is taken as lasting.
    """
    return exp(Z90 * sqrt(pace.noise) / 3)

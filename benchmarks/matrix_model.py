"""How long an engine's step takes by a linear model, for shapes that do not fit the machine at hand."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.shapes import SHAPES


@dataclass(frozen=True)
class Steps:
    """Seconds a step and parameter: `fixed`, and `per_row` for each row of the batch."""

    fixed: float
    per_row: float


def parameters(name: str) -> int:
    """Weights of a shape, embeddings included."""
    shape = SHAPES[name]
    keys = shape.kv_heads * shape.hidden // shape.heads
    attention = 2 * shape.hidden * shape.hidden + 2 * keys * shape.hidden
    layer = attention + 3 * shape.hidden * shape.intermediate
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return embeddings + shape.layers * layer


def fit_steps(known: Sequence[tuple[int, float]], name: str, output_tokens: int) -> Steps:
    """Least squares over (batch, rows a second) of a measured shape.

    Raises:
        ValueError: there are not two different batch sizes.
    """
    points = [(batch, batch / (rate * output_tokens) / parameters(name)) for batch, rate in known]
    mean_batch = sum(batch for batch, _ in points) / len(points)
    mean_seconds = sum(seconds for _, seconds in points) / len(points)
    spread = sum((batch - mean_batch) ** 2 for batch, _ in points)
    if not spread:
        raise ValueError("a fit needs two different batch sizes")
    slope = sum((batch - mean_batch) * (seconds - mean_seconds) for batch, seconds in points) / spread
    return Steps(max(0.0, mean_seconds - slope * mean_batch), max(0.0, slope))


def simulated_rate(steps: Steps, name: str, batch: int, output_tokens: int) -> float:
    """Rows a second of a shape at a full batch."""
    step_seconds = parameters(name) * (steps.fixed + steps.per_row * batch)
    return batch / (step_seconds * output_tokens)

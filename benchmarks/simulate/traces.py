"""Public traces as workloads: the rows of a trace become the rows of batch jobs.

Traces hold single requests of chats. Here consecutive requests make up a job; tenants, models, sizes and windows are
made up as in `workload`, and arrivals are stretched so that the load is the one asked for.

* Azure LLM inference (2023 and 2024): CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens.
* Mooncake: JSONL with `timestamp` (milliseconds), `input_length`, `output_length`.
"""

import csv
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.simulate.workload import Lengths

Request = tuple[float, int, int]
"""(seconds, prompt tokens, output tokens)."""


def read_trace(path: Path) -> list[Request]:
    """The requests of a trace, by time.

    Raises:
        ValueError: naming the file and line that is not of either format, or saying that the file is empty.
    """
    with path.open(newline="", encoding="utf-8") as lines:
        first = lines.readline()
        lines.seek(0)
        read = _mooncake if first.lstrip().startswith("{") else _azure
        requests = sorted(read(path, lines))
    if not requests:
        raise ValueError(f"{path} has no requests")
    return requests


def _azure(path: Path, lines: Iterator[str]) -> Iterator[Request]:
    for number, row in enumerate(csv.DictReader(lines), 2):
        try:
            # Azure gives seven digits behind the point; Python reads six.
            moment = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            yield moment, max(1, int(row["ContextTokens"])), max(1, int(row["GeneratedTokens"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}:{number}: expected the columns TIMESTAMP, ContextTokens and GeneratedTokens ({error})"
            ) from error


def _mooncake(path: Path, lines: Iterator[str]) -> Iterator[Request]:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            yield float(row["timestamp"]) / 1000, max(1, int(row["input_length"])), max(1, int(row["output_length"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}:{number}: expected timestamp, input_length and output_length ({error})"
            ) from error


class Replay:
    """The trace's requests in order, from a place that the seed chooses; at its end it starts over."""

    def __init__(self, requests: list[Request]) -> None:
        times, prompts, outputs = zip(*requests, strict=True)
        self._gaps = np.diff(np.array(times, np.float64), prepend=times[0])
        self._prompts = np.array(prompts, np.int64)
        self._outputs = np.array(outputs, np.int64)
        self._sums = np.cumsum(self._prompts + self._outputs)
        self._place = -1

    def rows(self, chance: np.random.Generator, tokens: float) -> tuple[Lengths, Lengths]:
        """The next requests, of so many tokens together."""
        if self._place < 0:
            self._place = int(chance.integers(len(self._prompts)))
        count = max(1, round(tokens / (self._sums[-1] / len(self._sums))))
        chosen = (self._place + np.arange(count)) % len(self._prompts)
        self._place = int(chosen[-1] + 1) % len(self._prompts)
        return self._prompts[chosen], self._outputs[chosen]

    def gaps(self, chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
        """Consecutive gaps of the trace, as bursty as they are there; never all at once."""
        first = int(chance.integers(len(self._gaps)))
        chosen = self._gaps[(first + np.arange(count)) % len(self._gaps)]
        return chosen + max(float(chosen.mean()), 1e-3) * 0.01

"""Throughput over batch size, concurrency and model shape, by pairs; each figure is measured, or says it is simulated.

    python -m benchmarks.matrix [--json] [--plot DIR]

*Batch size*: most rows in the engine's batch (`TIDEMILL_INFERENCE_MAX_NUM_SEQS`). *Concurrency*: leases in flight at
the worker (`TIDEMILL_INFERENCE_SLOTS`). Every pair of values is measured with one of the shapes that fit this machine:
the tiny model and Qwen2.5-0.5B's shape with random weights, each cell on a service of its own, seal to last result,
greedy. The 7B shape is simulated: a step of the engine takes P(a + bB) seconds for P parameters and B rows, a and b
fitted to the measured cells of the 0.5B shape (see `benchmarks.matrix_model`).
"""

import argparse
import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.matrix_model import fit_steps, simulated_rate
from benchmarks.shapes import model_folder
from benchmarks.throughput_rows import Work
from benchmarks.throughput_sides import Tidemill, open_service

BATCHES = (16, 64, 256)
CONCURRENCIES = (1, 2, 4)
TINY, SMALL, LARGE = "tiny", "qwen2.5-0.5b", "qwen2.5-7b"
WORK = {TINY: Work(2000, 16), SMALL: Work(128, 16)}
CHUNK_ROWS = 512


@dataclass(frozen=True)
class Cell:
    """One combination and its rate in rows a second; `origin` is `measured` or `simulated`."""

    shape: str
    batch: int
    concurrency: int
    rows_per_s: float
    origin: str


def plan() -> list[tuple[str, int, int]]:
    """Shape, batch size and concurrency of the cells to measure: each pair of values occurs."""
    return [
        ((TINY, SMALL)[(row + column) % 2], batch, concurrency)
        for row, batch in enumerate(BATCHES)
        for column, concurrency in enumerate(CONCURRENCIES)
    ]


def measure(shape: str, batch: int, concurrency: int, model: Path) -> Cell:
    """A fresh service, a first job that loads the engine, and the one that counts."""
    environment = {
        "TIDEMILL_INFERENCE_MAX_NUM_SEQS": str(batch),
        "TIDEMILL_INFERENCE_SLOTS": str(concurrency),
        "TIDEMILL_SCHEDULER_CHUNK_ROWS": str(CHUNK_ROWS),
    }
    work = WORK[shape]
    with contextlib.ExitStack() as stack:
        side = Tidemill(open_service(model, stack, environment), model.name, "shared")
        side.seconds(Work(8, work.output_tokens), 0)
        return Cell(shape, batch, concurrency, round(work.rows / side.seconds(work, 1), 3), "measured")


def simulate(cells: Sequence[Cell]) -> list[Cell]:
    """The 7B shape at every batch size; concurrency is taken not to matter, the engine being the bottleneck."""
    work = WORK[SMALL]
    known = [(min(cell.batch, work.rows), cell.rows_per_s) for cell in cells if cell.shape == SMALL]
    steps = fit_steps(known, SMALL, work.output_tokens)
    return [
        Cell(LARGE, batch, concurrency, round(simulated_rate(steps, LARGE, batch, work.output_tokens), 3), "simulated")
        for batch in BATCHES
        for concurrency in CONCURRENCIES
    ]


def run() -> list[Cell]:
    """All cells."""
    cells: list[Cell] = []
    with model_folder(TINY) as tiny, model_folder(SMALL) as small:
        for shape, batch, concurrency in plan():
            cells.append(measure(shape, batch, concurrency, tiny if shape == TINY else small))
    return [*cells, *simulate(cells)]


def as_table(cells: Sequence[Cell]) -> str:
    """The cells for people."""
    lines = ["matrix: rows/s from seal to last result"]
    for cell in cells:
        where = f"{cell.shape:<14} batch {cell.batch:>4}  concurrency {cell.concurrency}"
        lines.append(f"  {where}  {cell.rows_per_s:>10.2f}  {cell.origin}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw a PNG of each shape into DIR")
    options = parser.parse_args()
    cells = run()
    if options.plot:
        from benchmarks.matrix_plot import draw

        draw(options.plot, cells)
    found = {"benchmark": "matrix", "unit": "rows/s", "cells": [asdict(cell) for cell in cells]}
    print(json.dumps(found) if options.json else as_table(cells))


if __name__ == "__main__":
    main()

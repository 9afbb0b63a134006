"""Rows a second, the same rows and parameters on each side: bare vLLM, Ray Data LLM, Tidemill from seal to last result.

    python -m benchmarks.throughput [--sides bare,shared] [--rows 20000] [--model tiny|qwen2.5-0.5b|FOLDER] [--json]

| Side | What runs | Start-up |
|---|---|---|
| bare | `vllm.LLM.generate`, texts and outputs in hand | not counted |
| async | `AsyncLLM`, a task a row | not counted |
| run_batch | `vllm run-batch`, the rows as chats (it takes no plain prompts) | subtracted: a run of one row |
| ray_data | `ray.data.llm.build_processor`, one engine | subtracted: a run of one row |
| shared | Tidemill, warm engine: all services, Ray Data, object store, ledger | not counted |
| dedicated | Tidemill, `EXECUTION_MODE_DEDICATED` | counted: each chunk loads its engine |

Sides alternate: each repeat runs every side once, on rows that no run saw before. `ratio` is the median over the
repeats of shared over bare. Engines stay loaded beside each other and idle while another side runs.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.figures import Figure, figure
from benchmarks.shapes import SHAPES, model_folder
from benchmarks.throughput_rows import Work
from benchmarks.throughput_sides import SIDES, Side, open_sides
from services.inference.models import engine_build

DEFAULT_SIDES = "bare,shared"


@dataclass(frozen=True)
class Measured:
    """Seconds of each run by side, in the order of the repeats."""

    work: Work
    seconds: Mapping[str, Sequence[float]]

    def rates(self, side: str) -> Figure:
        """Rows a second."""
        return figure([self.work.rows / seconds for seconds in self.seconds[side]])

    def ratio(self, side: str) -> Figure | None:
        """The side's rate over bare vLLM's, repeat by repeat; None where bare did not run."""
        if "bare" not in self.seconds or side not in self.seconds:
            return None
        pairs = zip(self.seconds["bare"], self.seconds[side], strict=False)
        return figure([bare / own for bare, own in pairs])


def measure(sides: Mapping[str, Side], work: Work, repeats: int) -> Measured:
    """Every side once a repeat; a first run of each is not counted unless the side starts anew each time."""
    for side in sides.values():
        side.warm(work)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(1, repeats + 1):
        for name, side in sides.items():
            if run <= side.most_repeats:
                seconds[name].append(side.seconds(work, run))
    return Measured(work, seconds)


def as_json(measured: Measured, model: str) -> dict[str, Any]:
    """The printed object; `spread` has each side's rate and its ratio to bare with extremes."""
    ratios = {name: found for name in measured.seconds if (found := measured.ratio(name))}
    return {
        "benchmark": "throughput",
        "sides": {name: measured.rates(name).median for name in measured.seconds},
        "ratio": ratios["shared"].median if "shared" in ratios else None,
        "spread": {
            "rows_per_s": {name: asdict(measured.rates(name)) for name in measured.seconds},
            "over_bare": {name: asdict(ratio) for name, ratio in ratios.items()},
        },
        "model": model,
        "rows": measured.work.rows,
        "output_tokens": measured.work.output_tokens,
        "engine": engine_build("cpu"),
    }


def as_table(measured: Measured, model: str) -> str:
    """The same for people."""
    work = measured.work
    lines = [f"throughput: {model}, {work.rows} rows of {work.output_tokens} output tokens, rows/s"]
    for name in measured.seconds:
        rates, ratio = measured.rates(name), measured.ratio(name)
        over = f"  over bare {ratio.median:.3f} [{ratio.min:.3f} .. {ratio.max:.3f}]" if ratio else ""
        lines.append(f"  {name:<10} {rates.median:>9.1f}  [{rates.min:.1f} .. {rates.max:.1f}]  n={rates.runs}{over}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default=DEFAULT_SIDES, help=f"of {','.join(SIDES)} (default {DEFAULT_SIDES})")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a run (default 20000)")
    parser.add_argument("--output-tokens", type=int, default=16, help="most tokens of an answer (default 16)")
    parser.add_argument("--repeats", type=int, default=5, help="alternations (default 5)")
    parser.add_argument("--model", default="tiny", help=f"tiny, {', '.join(SHAPES)} or a folder (default tiny)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    names = options.sides.split(",")
    if unknown := sorted(set(names) - set(SIDES)):
        parser.error(f"--sides: unknown {', '.join(unknown)}; choose from {', '.join(SIDES)}")
    with model_folder(options.model) as folder, open_sides(names, folder) as sides:
        measured = measure(sides, Work(options.rows, options.output_tokens), options.repeats)
    print(json.dumps(as_json(measured, options.model)) if options.json else as_table(measured, options.model))


if __name__ == "__main__":
    main()

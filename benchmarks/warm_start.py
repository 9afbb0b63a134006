"""How long a small job takes on a warm engine, from its seal to its end, against programs that load their engine anew.

    python -m benchmarks.warm_start [--rows 64] [--repeats 5] [--fresh-repeats 2] [--json]

Tidemill's side runs the real scheduler, gateway and inference processes; its clock starts with the call that seals the
job and stops when the client sees the terminal state: lease, Ray Data, engine, commits, manifest. The others run
afterwards on the same rows and parameters: a Ray Data LLM pipeline, see `fresh_pipeline`, and `vllm run-batch`, which
takes the rows as chats. A ratio is their time over ours; `ratio` is that of Ray Data LLM.
"""

import argparse
import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.figures import Figure, figure, report
from benchmarks.shapes import model_folder
from benchmarks.throughput_rows import Work, engine_arguments
from benchmarks.throughput_sides import Tidemill, open_service, ray_data, run_batch

MAX_TOKENS = 16


def measure_warm(model: Path, work: Work, repeats: int) -> Figure:
    """Our side: a first job loads the engine and is not counted."""
    with contextlib.ExitStack() as stack:
        side = Tidemill(open_service(model, stack), model.name, "shared")
        side.warm(work)
        return figure([side.seconds(work, run) for run in range(1, repeats + 1)])


def measure_fresh(model: Path, work: Work, repeats: int) -> Figure:
    """A Ray Data LLM pipeline, each time in a process of its own."""
    return figure([ray_data(model, work.prompts(run), work) for run in range(repeats)])


def measure_run_batch(model: Path, work: Work, repeats: int) -> Figure:
    """`vllm run-batch`, each time in a process of its own."""
    arguments = engine_arguments(str(model), "float32")
    return figure([run_batch(model, arguments, work.prompts(run), work) for run in range(repeats)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="rows of a job (default 64)")
    parser.add_argument("--repeats", type=int, default=5, help="counted jobs on the warm engine (default 5)")
    parser.add_argument("--fresh-repeats", type=int, default=2, help="fresh pipelines (default 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    work = Work(arguments.rows, MAX_TOKENS)
    with model_folder("tiny") as model:
        ours = measure_warm(model, work, arguments.repeats)
        theirs = {
            "ray_data_llm_fresh_s": measure_fresh(model, work, arguments.fresh_repeats),
            "vllm_run_batch_s": measure_run_batch(model, work, arguments.fresh_repeats),
        }
    ratios = {name: round(side.median / ours.median, 2) for name, side in theirs.items()}
    sides = {"tidemill_warm_s": ours, **theirs}
    if arguments.json:
        found = {"sides": {name: asdict(side) for name, side in sides.items()}, "ratios": ratios}
        found |= {"benchmark": "warm_start", "unit": "s", "ratio": ratios["ray_data_llm_fresh_s"]}
        print(json.dumps(found))
    else:
        print(report("warm_start", "s", sides, ratios["ray_data_llm_fresh_s"], as_json=False))
        print(f"  ratio of run-batch {ratios['vllm_run_batch_s']:.2f}")


if __name__ == "__main__":
    main()

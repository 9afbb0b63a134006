"""How long a small job takes on a warm engine, from its seal to its end, against programs that load their engine anew.

    python -m benchmarks.warm_start [--rows 64] [--repeats 5] [--fresh-repeats 2] [--json]

Tidemill's side runs the real scheduler, gateway and inference processes; its clock starts with the call that seals the
job and stops when the client sees the terminal state: lease, Ray Data, engine, commits, manifest. The others run
afterwards on the same rows and parameters: a Ray Data LLM pipeline, see `fresh_pipeline`, and `vllm run-batch`, which
takes the rows as chats. A ratio is their time over ours; `ratio` is that of Ray Data LLM.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.statistics import Figure, figure, report
from benchmarks.throughput_rows import Work, engine_arguments
from benchmarks.throughput_sides import run_batch
from tidemill.client import Client, state_name
from tidemill.up.embedded import UpOptions, running

MAX_TOKENS = 16
MODEL = "tiny"


def prompts(rows: int, run: int) -> list[str]:
    """Unique prompts: equal ones would flatter the prefix cache."""
    return [f"Run {run}, row {row}: tell me about the number {row * 7919 + run}." for row in range(rows)]


def warm_seconds(client: Client, rows: int, run: int) -> float:
    """Seconds from seal to end of one job."""
    job, _ = client.create(client.new_job(model=MODEL, sampling={"temperature": 0, "max_tokens": MAX_TOKENS}))
    count = client.append(job, prompts(rows, run))
    started = time.monotonic()
    client.seal(job, count)
    ended = job.wait(timeout=600)
    seconds = time.monotonic() - started
    if state_name(ended) != "SUCCEEDED" or ended.row_counts.succeeded != rows:
        raise SystemExit(f"job {job.name} ended {state_name(ended)}: {ended.row_counts}")
    return seconds


def measure_warm(home: Path, rows: int, repeats: int) -> Figure:
    """Our side: a first job loads the engine and is not counted."""
    options = UpOptions(home, dagster=False, any_port=True)
    with (
        running(options, lambda _event: None, lambda _line: None) as service,
        Client(service.address, service.api_key) as client,
    ):
        warm_seconds(client, rows, 0)
        return figure([warm_seconds(client, rows, run) for run in range(1, repeats + 1)])


def measure_fresh(home: Path, rows: int, repeats: int) -> Figure:
    """The baseline, each time in a process of its own."""
    source = home / "rows.json"
    source.write_text(json.dumps([{"prompt": text, "max_tokens": MAX_TOKENS} for text in prompts(rows, 0)]))
    command = [sys.executable, "-m", "benchmarks.fresh_pipeline", str(home / "models" / MODEL), str(source)]
    seconds: list[float] = []
    for _ in range(repeats):
        finished = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)  # noqa: S603
        if finished.returncode:
            raise SystemExit(finished.stderr[-3000:])
        seconds.append(float(json.loads(finished.stdout.splitlines()[-1])["seconds"]))
    return figure(seconds)


def measure_run_batch(home: Path, rows: int, repeats: int) -> Figure:
    """`vllm run-batch`, each time in a process of its own."""
    model, work = home / "models" / MODEL, Work(rows, MAX_TOKENS)
    arguments = engine_arguments(str(model), "float32")
    return figure([run_batch(model, arguments, prompts(rows, run), work) for run in range(repeats)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="rows of a job (default 64)")
    parser.add_argument("--repeats", type=int, default=5, help="counted jobs on the warm engine (default 5)")
    parser.add_argument("--fresh-repeats", type=int, default=2, help="fresh pipelines (default 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidemill-warm-") as folder:
        home = Path(folder)
        ours = measure_warm(home, arguments.rows, arguments.repeats)
        theirs = {
            "ray_data_llm_fresh_s": measure_fresh(home, arguments.rows, arguments.fresh_repeats),
            "vllm_run_batch_s": measure_run_batch(home, arguments.rows, arguments.fresh_repeats),
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

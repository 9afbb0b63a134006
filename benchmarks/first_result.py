"""How long the answer of a one-row job takes on a warm engine, from submission, beyond the engine's own time.

    python -m benchmarks.first_result [--repeats 30] [--json]

The clock starts before the job is created and stops when the client has the answer, read while the job runs. From that
the time is subtracted that the engine itself reports for the row: in its queue, reading the prompt, writing the answer.
"""

import argparse
import contextlib
import json
import time
from dataclasses import asdict

from benchmarks.decisions import percentile
from benchmarks.figures import figure
from benchmarks.shapes import model_folder
from benchmarks.throughput_rows import Work
from benchmarks.throughput_sides import open_service
from tidemill.client import Client

WORK = Work(rows=1, output_tokens=16)


def one_row(client: Client, model: str, run: int) -> tuple[float, float]:
    """Seconds from submission to the answer, and those of them that the engine took."""
    started = time.monotonic()
    job = client.submit(WORK.prompts(run), model=model, sampling=WORK.sampling)
    [result] = job.results()
    elapsed = time.monotonic() - started
    job.wait(timeout=60)
    return elapsed, result.queue_seconds + result.prefill_seconds + result.decode_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="counted jobs (default 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with model_folder("tiny") as model, contextlib.ExitStack() as stack:
        client = open_service(model, stack)
        for run in range(3):
            one_row(client, model.name, run)
        runs = [one_row(client, model.name, run) for run in range(3, 3 + options.repeats)]
    beyond = [1000 * (elapsed - engine) for elapsed, engine in runs]
    found = {
        "benchmark": "first_result",
        "unit": "ms",
        "beyond_engine_p50": round(percentile(beyond, 0.5), 1),
        "beyond_engine_p90": round(percentile(beyond, 0.9), 1),
        "spread": {
            "beyond_engine": asdict(figure(beyond)),
            "engine": asdict(figure([1000 * engine for _, engine in runs])),
        },
    }
    if options.json:
        print(json.dumps(found))
    else:
        print(f"first result beyond the engine, ms: p50 {found['beyond_engine_p50']}, p90 {found['beyond_engine_p90']}")


if __name__ == "__main__":
    main()

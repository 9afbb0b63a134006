"""Memory of every process of a running service while one large job goes through it.

    python -m benchmarks.memory [--rows 1000000] [--json]

Rows are made one by one, so that the client holds none; each asks for one token. Resident memory is read every two
seconds, summed over the processes of one kind. `growth_mb` is the highest reading in the second half of the job less
the highest in its first tenth: what is flat grows by nothing.
"""

import argparse
import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from benchmarks.shapes import model_folder
from benchmarks.throughput_rows import Work
from benchmarks.throughput_sides import open_service
from tidemill.client import Client, state_name

_PERIOD = 2.0
_MIB = 1 << 20
_KINDS = ("services.gateway", "services.scheduler", "services.inference", "EngineActor", "VLLM::")


@dataclass
class Readings:
    """Resident MiB by kind of process, each with the share of the job's rows that were done."""

    values: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, share: float, memory: Mapping[str, float]) -> None:
        """Note one reading."""
        for kind, size in memory.items():
            self.values[kind].append((share, size))

    def growth(self, kind: str) -> float:
        """MiB between the peak of the first tenth and that of the second half."""
        early = [size for share, size in self.values[kind] if share <= 0.1]
        late = [size for share, size in self.values[kind] if share >= 0.5]
        return max(late) - max(early) if early and late else 0.0

    def peak(self, kind: str) -> float:
        """Highest reading in MiB."""
        return max(size for _, size in self.values[kind])


def memory() -> dict[str, float]:
    """Resident MiB of this process and its descendants by kind."""
    sizes: dict[str, float] = {"client": psutil.Process().memory_info().rss / _MIB}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            kind = _kind(process.cmdline())
            sizes[kind] = sizes.get(kind, 0.0) + process.memory_info().rss / _MIB
    return sizes


def _kind(command: Sequence[str]) -> str:
    line = " ".join(command)
    named = next((kind for kind in _KINDS if kind in line), None)
    return named or ("ray" if "ray" in line else "other")


def rows(count: int) -> Iterator[str]:
    """Unique short prompts."""
    return (f"{row * 7919:x}: yes?" for row in range(count))


def measure(client: Client, model: str, count: int) -> tuple[Readings, float]:
    """Readings over one job, and its rows a second from seal to end."""
    readings, ended = Readings(), threading.Event()
    job, _ = client.create(client.new_job(model=model, sampling={"temperature": 0.0, "max_tokens": 1}))

    def read() -> None:
        while not ended.wait(_PERIOD):
            counts = job.get().row_counts
            readings.add(counts.succeeded / count, memory())

    client.append(job, rows(count))
    reader = threading.Thread(target=read)
    reader.start()
    try:
        started = time.monotonic()
        client.seal(job, count)
        last = job.wait()
        seconds = time.monotonic() - started
    finally:
        ended.set()
        reader.join()
    if state_name(last) != "SUCCEEDED" or last.row_counts.succeeded != count:
        raise SystemExit(f"the job ended {state_name(last)}: {last.row_counts}")
    return readings, count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the job (default 1000000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with model_folder("tiny") as model, contextlib.ExitStack() as stack:
        client = open_service(model, stack)
        job = client.submit(Work(8, 1).prompts(0), model=model.name)
        job.wait()
        readings, rate = measure(client, model.name, options.rows)
    kinds = {kind: {"peak_mb": readings.peak(kind), "growth_mb": readings.growth(kind)} for kind in readings.values}
    rounded = {kind: {name: round(value, 1) for name, value in sizes.items()} for kind, sizes in kinds.items()}
    if options.json:
        print(json.dumps({"benchmark": "memory", "rows": options.rows, "rows_per_s": round(rate, 1), "kinds": rounded}))
        return
    print(f"memory: {options.rows} rows at {rate:.0f} rows/s, MiB")
    for kind, sizes in rounded.items():
        print(f"  {kind:<20} peak {sizes['peak_mb']:>8.1f}  growth {sizes['growth_mb']:>7.1f}")


if __name__ == "__main__":
    main()

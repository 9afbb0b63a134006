"""How long the scheduler takes to start over a ledger with a long past, and how much memory it takes then.

    python -m benchmarks.ledger_start [--json] [--ended N] [--open N] [--tail N] [--repeats N] [--folder DIR]

The ledger (see `long_ledger`) has 100,000 jobs that ended, all but 1,000 of them archived, 10,000 open ones, and 25,000
events behind its snapshot: half of what may lie there. *Start* is from the creation of the real scheduler process until
it serves, and its processor time says the same of a busy machine; *memory* is what is resident then. Targets: 5 s and
500 MB.
"""

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import pinned
from benchmarks.figures import Figure, figure
from benchmarks.long_ledger import Built, Size, build

MEGABYTE = 1_000_000
TARGETS = {"start_s": 5.0, "rss_mb": 500.0}


def measure(home: Path, ledger: Path, core: int) -> tuple[float, float, float]:
    """Seconds of one start, processor seconds among them, and megabytes resident after it."""
    started = time.perf_counter()
    with pinned.scheduler(home, core, f"sqlite:///{ledger}", snapshot_events=1_000_000) as (_, http_address):
        elapsed = time.perf_counter() - started
        with urllib.request.urlopen(f"http://{http_address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("process_"))
    resident = float(values["process_resident_memory_bytes"]) / MEGABYTE
    return elapsed, float(values["process_cpu_seconds_total"]), resident


def run(folder: Path, size: Size, repeats: int) -> tuple[dict[str, Figure], Built]:
    """Build the ledger, then start over fresh copies of it: a stop writes a snapshot, which would spare the tail."""
    built_at = folder / "built.sqlite3"
    built = build(built_at, size)
    core, _ = pinned.cores()
    found: list[tuple[float, float, float]] = []
    for number in range(repeats):
        home = folder / f"home-{number}"
        home.mkdir()
        copy = home / "ledger.sqlite3"
        copy.write_bytes(built_at.read_bytes())
        found.append(measure(home, copy, core))
        copy.unlink()
    names = ("start_s", "start_cpu_s", "rss_mb")
    return {name: figure(values) for name, values in zip(names, zip(*found, strict=True), strict=True)}, built


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; the exit status says whether the targets were met."""
    usual = Size()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger_start")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--ended", type=int, default=usual.ended, help="jobs that ended")
    parser.add_argument("--open", type=int, default=usual.open, help="open jobs")
    parser.add_argument("--tail", type=int, default=usual.tail, help="events behind the snapshot")
    parser.add_argument("--repeats", type=int, default=3, help="starts")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args(arguments)
    size = Size(options.ended, min(usual.fresh, options.ended), options.open, options.tail)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures, built = run(Path(folder), size, options.repeats)
    met = all(figures[name].median <= limit for name, limit in TARGETS.items())
    if options.json:
        sides = {name: asdict(side) for name, side in figures.items()}
        print(json.dumps({"size": asdict(size), **sides, "snapshot": asdict(built), "targets": TARGETS, "met": met}))
    else:
        print(f"a ledger of {size.ended} ended and {size.open} open jobs, {size.tail} events behind the snapshot")
        for name, side in figures.items():
            limit = f"<= {TARGETS[name]:g}" if name in TARGETS else ""
            print(f"  {name:<12} {side.median:>9.2f}  [{side.min:.2f} .. {side.max:.2f}]  n={side.runs}  {limit}")
        print(
            f"  snapshot     {built.snapshot_bytes} bytes; decisions stood still for {built.capture_s:.3f} s,", end=" "
        )
        print(f"the longest slice took {built.longest_slice_s:.3f} s")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

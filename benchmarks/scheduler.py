"""How fast the scheduler is: durable cycles, decisions, the way from submission to a worker, and queues beside it.

    python -m benchmarks.scheduler [--quick] [--json] [--peers arq,bullmq] [--folder DIR]

*Cycle*: a worker leases one chunk and commits it, over gRPC, each call answered after the fsync of its events. 64
callers with one call in flight each (see `cycles`) lease four chunks by a call, as workers that look ahead do, and
then one; the real scheduler process has one core, the callers and Redis share another. Redis runs with `appendfsync
always`. *Decision*: see `decisions`. *Peers*: see `peers`; they are left out of `--quick`. Each side's ratio is to the
disk's own rate of fsyncs, or to the peer.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import disk, pinned
from benchmarks.cycles import Cycles
from benchmarks.decisions import decision_ms, percentile
from benchmarks.figures import Figure, figure
from benchmarks.peers import PEERS, MissingPeerError, Peer, drain

LEDGERS = ("sqlite", "redis")
CHUNK_ROWS = 8
BATCH = 4
"""Chunks that a call leases: as many as a worker has lookahead for. A commit is a call of its own."""
NO_CAP = 4096
_CAPS = {f"max_leases{which}": NO_CAP for which in ("", "_per_tenant", "_per_model", "_per_job")}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    callers: int
    seconds: float
    repeats: int
    probes: int
    decisions: int
    open_jobs: tuple[int, ...]
    peer_jobs: int
    peer_repeats: int


FULL = Size(64, 5.0, 5, 50, 20_000, (10, 1000, 10_000), 3000, 3)
QUICK = Size(64, 1.5, 3, 20, 2000, (10, 1000, 10_000), 0, 0)


@dataclass(frozen=True)
class Measured:
    """Everything that one run found; figures by ledger, by number of open jobs, or by peer."""

    size: Size
    fsync: Figure
    cycles: Mapping[str, Figure]
    single_cycles: Mapping[str, Figure]
    first_lease: Mapping[str, Figure]
    events_per_append: Mapping[str, float]
    decisions: Mapping[str, Sequence[float]]
    peers: Mapping[str, Figure | str]


def measure(size: Size, folder: Path, peers: Sequence[Peer]) -> Measured:
    """Run everything, one thing after the other."""
    fsync = figure([disk.fsyncs_per_second(folder, 0.5) for _ in range(3)])
    runs = {name: run_cycles(name, size, folder / name) for name in LEDGERS}
    singles = {name: run_cycles(name, replace(size, probes=1), folder / f"{name}-1", batch=1) for name in LEDGERS}
    return Measured(
        size,
        fsync,
        {name: figure(run.cycles_per_s) for name, run in runs.items()},
        {name: figure(run.cycles_per_s) for name, run in singles.items()},
        {name: figure(run.first_lease_ms) for name, run in runs.items()},
        {name: round(run.events_per_append, 2) for name, run in runs.items()},
        {str(jobs): decision_ms(jobs, size.decisions) for jobs in size.open_jobs},
        {peer.name: run_peer(peer, size, folder) for peer in peers},
    )


def run_cycles(ledger: str, size: Size, folder: Path, batch: int = BATCH) -> Cycles:
    """The callers' figures on a fresh ledger."""
    server, rest = pinned.cores()
    folder.mkdir(parents=True)
    with (
        _ledger(ledger, folder, rest) as address,
        pinned.scheduler(folder, server, address, chunk_rows=CHUNK_ROWS, **_CAPS) as (grpc_address, http_address),
    ):
        command = [sys.executable, "-m", "benchmarks.cycles", grpc_address, http_address]
        command += ["--callers", str(size.callers), "--batch", str(batch), "--seconds", str(size.seconds)]
        command += ["--repeats", str(size.repeats), "--probes", str(size.probes)]
        return Cycles(**json.loads(pinned.run(command, rest, 300 + size.seconds * size.repeats)))


@contextlib.contextmanager
def _ledger(name: str, folder: Path, core: int) -> Generator[str]:
    if name == "sqlite":
        yield f"sqlite:///{folder}/ledger.sqlite3"
        return
    with pinned.redis(folder / "redis", core) as port:
        yield f"redis://127.0.0.1:{port}/0"


def run_peer(peer: Peer, size: Size, folder: Path) -> Figure | str:
    """The peer's figure, or why there is none."""
    try:
        return drain(peer, folder, size.peer_jobs, size.callers, size.peer_repeats)
    except MissingPeerError as missing:
        return f"skipped: {missing}"


def as_json(measured: Measured) -> dict[str, Any]:
    """The printed object. Rates are per second, times in milliseconds; `spread` has medians, extremes and runs."""
    return {
        "benchmark": "scheduler",
        "cycles_per_s": {name: side.median for name, side in measured.cycles.items()},
        "cycles_per_s_one_chunk_a_lease": {name: side.median for name, side in measured.single_cycles.items()},
        "decision_p50_ms": {jobs: round(percentile(times, 0.5), 4) for jobs, times in measured.decisions.items()},
        "decision_p99_ms": {jobs: round(percentile(times, 0.99), 4) for jobs, times in measured.decisions.items()},
        "submit_to_first_lease_ms": measured.first_lease["sqlite"].median,
        "fsync_per_s": measured.fsync.median,
        "events_per_append": dict(measured.events_per_append),
        "cycles_per_fsync": {
            name: round(side.median / measured.fsync.median, 4) for name, side in measured.cycles.items()
        },
        "peers": {name: _peer(result, measured.cycles["redis"]) for name, result in measured.peers.items()},
        "spread": {
            "cycles_per_s": {name: asdict(side) for name, side in measured.cycles.items()},
            "cycles_per_s_one_chunk_a_lease": {name: asdict(side) for name, side in measured.single_cycles.items()},
            "submit_to_first_lease_ms": {name: asdict(side) for name, side in measured.first_lease.items()},
            "fsync_per_s": asdict(measured.fsync),
        },
        "callers": measured.size.callers,
        "chunk_rows": CHUNK_ROWS,
        "chunks_per_lease": BATCH,
    }


def _peer(result: Figure | str, ours: Figure) -> dict[str, Any]:
    if isinstance(result, str):
        return {"skipped": result.removeprefix("skipped: ")}
    return {"jobs_per_s": result.median, "ratio": round(ours.median / result.median, 3), "spread": asdict(result)}


def as_table(measured: Measured) -> str:
    """The same for people."""
    found = as_json(measured)
    load = f"{measured.size.callers} callers, {BATCH} chunks of {CHUNK_ROWS} rows a lease"
    lines = [f"scheduler: {load}, one core each side"]
    lines.append(_line("fsyncs of the disk /s", measured.fsync))
    for name, side in measured.cycles.items():
        ratio, events = found["cycles_per_fsync"][name], measured.events_per_append[name]
        lines.append(_line(f"{name}: cycles /s", side) + f"  {ratio:.2f} an fsync, {events} events an append")
        lines.append(_line(f"{name}: the same, one a lease", measured.single_cycles[name]))
        lines.append(_line(f"{name}: seal to first lease, ms", measured.first_lease[name]))
    for jobs in measured.decisions:
        p50, p99 = found["decision_p50_ms"][jobs], found["decision_p99_ms"][jobs]
        lines.append(f"  decision at {jobs:>6} open jobs, ms  p50 {p50:.3f}  p99 {p99:.3f}")
    for peer in PEERS:
        if peer.name in measured.peers:
            lines.append(_peer_line(peer, measured.peers[peer.name], found["peers"][peer.name]))
    return "\n".join(lines)


def _line(name: str, side: Figure) -> str:
    return f"  {name:<30} {side.median:>9.1f}  [{side.min:.1f} .. {side.max:.1f}]  n={side.runs}"


def _peer_line(peer: Peer, result: Figure | str, found: Mapping[str, Any]) -> str:
    if isinstance(result, str):
        return f"  {peer.name}: {result}"
    return (
        _line(f"{peer.name}: jobs /s", result) + f"  ratio {found['ratio']:.2f}; acknowledged: {peer.acknowledgement}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ",".join(peer.name for peer in PEERS)
    parser.add_argument("--quick", action="store_true", help="under a minute, without peers")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--peers", default=names, help=f"which to run (default {names})")
    parser.add_argument("--folder", type=Path, default=pinned.ROOT / "build", help="on the disk to measure")
    options = parser.parse_args()
    wanted = set() if options.quick else set(options.peers.split(","))
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scheduler-", dir=options.folder) as folder:
        peers = [peer for peer in PEERS if peer.name in wanted]
        measured = measure(QUICK if options.quick else FULL, Path(folder).absolute(), peers)
    print(json.dumps(as_json(measured)) if options.json else as_table(measured))


if __name__ == "__main__":
    main()

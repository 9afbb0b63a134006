"""Rows a second that a client streams to a gateway and gets acknowledged as durable, and what there is to lose.

    python -m benchmarks.append [--rows 1000000] [--repeats 3] [--json] [--folder DIR]

| Side | What runs |
|---|---|
| tidemill | rows of 500 bytes by the client library through a real gateway and scheduler (SQLite ledger, local store) |
| echo | the same frames over bare gRPC (`grpc.aio` server, synchronous client), each answered and forgotten |
| parquet | the same rows encoded, hashed and written to Parquet files with fsync in one process |

The gateway, the echo server and the Parquet writer have one core; the clients and the scheduler share the other. Sides
alternate, and each repeat starts fresh processes. Memory growth is that of the peak over what the process had before
its first row; the larger of client and gateway counts.
"""

import argparse
import contextlib
import json
import secrets
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks import pinned
from benchmarks.append_memory import Memory
from benchmarks.append_rows import ROW_BYTES
from benchmarks.figures import Figure, figure
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2, scheduler_service_pb2_grpc
from tidemill.keys import create_key
from tidemill.v1 import model_service_pb2

MODEL = "append"
TARGET_ROWS_PER_S = 50_000
TARGET_OVER_PARQUET = 0.5
TARGET_GROWTH_MB = 128
_CALL_SECONDS = 30
_SECONDS = 3600


@dataclass(frozen=True)
class Run:
    """One repeat: rates of the sides, MiB of growth, and processor seconds of each process of `tidemill`."""

    rows_per_s: float
    echo_rows_per_s: float
    parquet_rows_per_s: float
    growth_mb: Mapping[str, float]
    cpu_seconds: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """All repeats of so many rows."""

    rows: int
    runs: Sequence[Run]

    def of(self, value: Callable[[Run], float]) -> Figure:
        """One figure of every run."""
        return figure([value(run) for run in self.runs])


def measure(rows: int, repeats: int, folder: Path) -> Measured:
    """Every side once a repeat."""
    return Measured(rows, [_run(rows, folder / str(number)) for number in range(repeats)])


def _run(rows: int, folder: Path) -> Run:
    folder.mkdir(parents=True)
    appended, parquet = _append(rows, folder), _parquet(rows, folder)
    return Run(
        rows_per_s=rows / appended["seconds"],
        echo_rows_per_s=_echo(rows, folder),
        parquet_rows_per_s=parquet["rows_per_s"],
        growth_mb=appended["growth_mb"],
        cpu_seconds=appended["cpu_seconds"] | {"parquet": parquet["cpu_seconds"]},
    )


def _append(rows: int, folder: Path) -> dict[str, Any]:
    server, rest = pinned.cores()
    pepper = secrets.token_hex(16)
    key = create_key(folder / "keys.json", pepper, "bench")
    with (
        pinned.service("scheduler", folder, rest, ledger=f"sqlite:///{folder}/ledger.sqlite3") as scheduler,
        pinned.service("gateway", folder, server, scheduler=scheduler.address, key_pepper=pepper) as gateway,
    ):
        _offer(scheduler.address)
        memory = Memory(gateway.pid)
        processes = {"gateway": gateway.pid, "scheduler": scheduler.pid}
        before = {name: _cpu_seconds(pid) for name, pid in processes.items()}
        command = ["env", f"TIDEMILL_API_KEY={key}", sys.executable, "-m", "benchmarks.append_client"]
        client = json.loads(pinned.run([*command, gateway.address, MODEL, str(rows)], rest, _SECONDS))
        spent = {name: _cpu_seconds(pid) - before[name] for name, pid in processes.items()}
        return {
            "seconds": client["seconds"],
            "growth_mb": {"client": client["rss_growth_mb"], "gateway": memory.growth_mb()},
            "cpu_seconds": {"client": client["cpu_seconds"], **spent},
        }


def _offer(scheduler: str) -> None:
    """Let the scheduler believe in a worker with a model, so that jobs for it can be created."""
    report = records_pb2.ModelReport(
        model=MODEL, state=model_service_pb2.MODEL_STATE_LOADED, max_model_len=4096, digest="ab" * 32
    )
    request = scheduler_service_pb2.ExtendLeasesRequest(worker_id="benchmark", models=[report])
    with grpc.insecure_channel(scheduler, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)
        stub.ExtendLeases(request, timeout=_CALL_SECONDS)


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _parquet(rows: int, folder: Path) -> dict[str, float]:
    server, _ = pinned.cores()
    command = [sys.executable, "-m", "benchmarks.append_parquet", str(folder / "parquet"), str(rows)]
    return json.loads(pinned.run(command, server, _SECONDS))


def _echo(rows: int, folder: Path) -> float:
    server, rest = pinned.cores()
    ready_file, log = folder / "echo.address", folder / "echo.log"
    command = [sys.executable, "-m", "benchmarks.append_echo"]
    with pinned.running([*command, "serve", str(ready_file)], server, log) as process:
        pinned.wait_until(ready_file.exists, process, log)
        found = json.loads(pinned.run([*command, "send", ready_file.read_text(), str(rows)], rest, _SECONDS))
    return float(found["rows_per_s"])


def as_json(measured: Measured) -> dict[str, Any]:
    """The printed object: medians, but the largest growth of memory; `spread` has medians, extremes and runs."""
    spread = {
        "rows_per_s": measured.of(lambda run: run.rows_per_s),
        "rss_growth_mb": measured.of(lambda run: max(run.growth_mb.values())),
        "echo_rows_per_s": measured.of(lambda run: run.echo_rows_per_s),
        "parquet_rows_per_s": measured.of(lambda run: run.parquet_rows_per_s),
        "over_parquet": measured.of(lambda run: run.rows_per_s / run.parquet_rows_per_s),
        "over_echo": measured.of(lambda run: run.rows_per_s / run.echo_rows_per_s),
    }
    names = measured.runs[0].cpu_seconds
    each = {name: measured.of(lambda run, name=name: 1e6 * run.cpu_seconds[name] / measured.rows) for name in names}
    return {
        "benchmark": "append",
        **{name: item.max if name == "rss_growth_mb" else item.median for name, item in spread.items()},
        "growth_mb": {
            side: measured.of(lambda run, side=side: run.growth_mb[side]).max for side in measured.runs[0].growth_mb
        },
        "cpu_us_per_row": {name: item.median for name, item in each.items()},
        "spread": {name: asdict(item) for name, item in spread.items()},
        "rows": measured.rows,
        "row_bytes": ROW_BYTES,
    }


def as_table(measured: Measured) -> str:
    """The same for people."""
    found = as_json(measured)
    lines = [f"append: {measured.rows} rows of {ROW_BYTES} bytes, one core each side"]
    for name, side in found["spread"].items():
        lines.append(
            f"  {name:<20} {side['median']:>12.2f}  [{side['min']:.2f} .. {side['max']:.2f}]  n={side['runs']}"
        )
    lines.append("  processor time of a row, us: " + _listed(found["cpu_us_per_row"]))
    lines.append("  largest growth of memory, MiB: " + _listed(found["growth_mb"]))
    lines.append(
        f"  targets: {TARGET_ROWS_PER_S} rows/s, {TARGET_OVER_PARQUET} of straight to Parquet, below "
        f"{TARGET_GROWTH_MB} MiB"
    )
    return "\n".join(lines)


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in values.items())


@contextlib.contextmanager
def _workspace(parent: Path) -> Generator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="append-", dir=parent) as name:
        yield Path(name).absolute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of a run (default 1000000)")
    parser.add_argument("--repeats", type=int, default=3, help="alternations (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--folder", type=Path, default=pinned.ROOT / "build", help="on the disk to measure")
    options = parser.parse_args()
    if options.rows < 1 or options.repeats < 1:
        parser.error("--rows and --repeats must be 1 or more")
    with _workspace(options.folder) as folder:
        measured = measure(options.rows, options.repeats, folder)
    print(json.dumps(as_json(measured)) if options.json else as_table(measured))


if __name__ == "__main__":
    main()

"""Random, spoiled and damaged calls of every RPC to a service that runs for real, engine and all.

    python -m benchmarks.fuzz [--minutes 10] [--seed N] [--json]
    python -m benchmarks.fuzz --repeat FILE

Three quarters of the time go to the gateway, the rest to the scheduler itself. A finding is a call that ends as
INTERNAL, UNKNOWN, DATA_LOSS or UNAVAILABLE, without a typed reason, or not at all; its call is made as small as it can
be and kept in a file that `--repeat` sends again. Processes must be the same ones afterwards, hold no more than a
bounded memory more, and answer a good job.
"""

import argparse
import json
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fuzz_calls import Call, FindingError, Line
from benchmarks.fuzzing import Tally, Target, fresh_jobs, fuzz, public_services, scheduler_services
from tidemill.client import Client
from tidemill.up.embedded import Running, UpOptions, running

MOST_GROWTH_MB = 256
_MIB = 1 << 20
_GATEWAY_SHARE = 0.75


@dataclass(frozen=True)
class Process:
    """A process of the service, to be the same one afterwards."""

    kind: str
    pid: int
    rss_mb: float


def processes() -> dict[str, Process]:
    """Gateway and scheduler as they are."""
    found: dict[str, Process] = {}
    for child in psutil.Process().children(recursive=True):
        line = " ".join(child.cmdline())
        for kind in ("gateway", "scheduler"):
            if f"services.{kind}" in line:
                found[kind] = Process(kind, child.pid, child.memory_info().rss / _MIB)
    return found


def measure(service: Running, client: Client, minutes: float, seed: int) -> dict[str, Any]:
    """What fuzzing found."""
    folder = Path(tempfile.mkdtemp(prefix="tidemill-fuzz-"))
    before = processes()
    model = client.models()[0].name.removeprefix("models/")
    lines = {
        "gateway": Line(service.address, f"Bearer {service.api_key}"),
        "scheduler": Line(service.chosen.address("scheduler"), ""),
    }
    services = {"gateway": public_services(), "scheduler": scheduler_services()}
    shares = {"gateway": _GATEWAY_SHARE, "scheduler": 1 - _GATEWAY_SHARE}
    tallies: dict[str, Tally] = {}
    for kind, line in lines.items():
        target = Target(line, services[kind], lambda: fresh_jobs(client, model))
        tallies[kind] = fuzz(target, shares[kind] * minutes * 60, seed, folder)
    after = processes()
    answers = client.run(["Is all well?"], model=model, sampling={"max_tokens": 4})
    findings = [found for tally in tallies.values() for found in tally.findings]
    for kind, process in before.items():
        if after[kind].pid != process.pid:
            findings.append(f"the {kind} died and was started again")
        if after[kind].rss_mb - process.rss_mb > MOST_GROWTH_MB:
            findings.append(f"the {kind} grew from {process.rss_mb:.0f} to {after[kind].rss_mb:.0f} MiB")
    if answers[0].error_code or not answers[0].output_tokens:
        findings.append(f"a good job had no answer: {answers[0].error_code}")
    return {
        "benchmark": "fuzz",
        "seed": seed,
        "calls": {kind: tally.calls for kind, tally in tallies.items()},
        "codes": {kind: line.codes for kind, line in lines.items()},
        "slowest_seconds": {kind: round(line.slowest_seconds, 2) for kind, line in lines.items()},
        "rss_growth_mb": {kind: round(after[kind].rss_mb - before[kind].rss_mb, 1) for kind in before},
        "findings": findings,
    }


def repeat(service: Running, path: Path) -> None:
    """Send a kept call again and say how it ends."""
    call = Call.load(path)
    at_scheduler = call.method.startswith("/tidemill.internal")
    address = service.chosen.address("scheduler") if at_scheduler else service.address
    line = Line(address, "" if at_scheduler else f"Bearer {service.api_key}")
    try:
        print(line.make(call).name)
    except FindingError as exc:
        sys.exit(f"still so: {exc}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the first round")  # noqa: S311
    parser.add_argument("--repeat", type=Path, help="send the call of a finding again")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidemill-fuzz-home-") as home:
        up = UpOptions(Path(home), dagster=False, any_port=True)
        with running(up, lambda _event: None, lambda _line: None) as service:
            if options.repeat:
                repeat(service, options.repeat)
                return
            print(f"seed {options.seed}", file=sys.stderr)
            with Client(service.address, service.api_key) as client:
                found = measure(service, client, options.minutes, options.seed)
    print(json.dumps(found) if options.json else json.dumps(found, indent=1))
    if found["findings"]:
        sys.exit(1)


if __name__ == "__main__":
    main()

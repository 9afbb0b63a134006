"""What each policy does to deadlines, swaps and small tenants.

    python -m benchmarks.simulate [--load 0.85] [--hours 8] [--seeds 5] [--oracle] [--admission] [--trace PATH]
                                  [--plot DIR] [--json]

The real core decides, on a virtual clock: 8 engines of one model each, 60 s to load another, 4 models, a heavy tenant
and 10 small ones. A run ends when the last job has; work that is put off is not work avoided. See `workload` for what
the jobs are like.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.simulate.compare import Scenario, Summary, compare
from benchmarks.simulate.policies import POLICIES
from benchmarks.simulate.run import Options

PLOT_LOADS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, simulate, print."""
    options = _parser().parse_args(arguments)
    scenario = Scenario(
        load=options.load,
        hours=options.hours,
        seeds=range(1, options.seeds + 1),
        options=Options(oracle=options.oracle, admission=options.admission),
        trace=options.trace,
        policies=options.policies.split(","),
    )
    if options.plot:
        _plot(scenario, options.plot)
        return 0
    summaries = compare(scenario)
    print(as_json(summaries) if options.json else as_table(scenario, summaries))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks.simulate", description="Compare scheduling policies by simulation.")
    parser.add_argument("--load", type=float, default=0.85, help="work over engine time, without loading models")
    parser.add_argument("--hours", type=float, default=8.0, help="virtual hours in which jobs arrive")
    parser.add_argument("--seeds", type=int, default=5, help="number of workloads")
    parser.add_argument("--oracle", action="store_true", help="the scheduler knows the true lengths of rows")
    parser.add_argument("--admission", action="store_true", help="refuse deadlines that cannot be promised (ours only)")
    parser.add_argument("--trace", type=Path, help="Azure LLM inference CSV or Mooncake JSONL: lengths and arrivals")
    parser.add_argument("--policies", default=",".join(POLICIES), help="which, separated by commas")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw the figures over loads 0.5 to 1.2 instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def as_json(summaries: Mapping[str, Summary]) -> str:
    """The three figures of each policy."""
    return json.dumps(
        {
            "policies": {
                policy: {
                    "late_ratio": round(each.late_ratio, 5),
                    "swaps": round(each.swaps, 1),
                    "small_tenant_slowdown_p50": round(each.small_tenant_slowdown_p50, 3),
                    "jobs": each.jobs,
                    "refused": each.refused,
                }
                for policy, each in summaries.items()
            }
        }
    )


def as_table(scenario: Scenario, summaries: Mapping[str, Summary]) -> str:
    """The same to read, with the heavy tenants beside the small ones."""
    lines = [
        f"load {scenario.load}, {scenario.hours:g} h, {len(scenario.seeds)} seeds",
        f"{'policy':<14}{'jobs':>7}{'refused':>9}{'late':>9}{'swaps a run':>13}{'small p50':>11}{'heavy p50':>11}",
    ]
    for policy, each in summaries.items():
        heavy = [value for name, value in each.slowdown_by_tenant.items() if name.startswith("heavy")]
        lines.append(
            f"{policy:<14}{each.jobs:>7}{each.refused:>9}{each.late_ratio:>9.2%}{each.swaps:>13.0f}"
            f"{each.small_tenant_slowdown_p50:>11.2f}{max(heavy, default=0.0):>11.2f}"
        )
    return "\n".join(lines)


def _plot(scenario: Scenario, folder: Path) -> None:
    from benchmarks.simulate.plots import draw

    summaries = [compare(replace(scenario, load=load)) for load in PLOT_LOADS]
    for path in draw(folder, PLOT_LOADS, summaries):
        print(path)


if __name__ == "__main__":
    sys.exit(main())

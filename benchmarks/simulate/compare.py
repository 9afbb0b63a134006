"""The same workloads under each policy, on as many processes as there are processors."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from statistics import median

from benchmarks.simulate.policies import POLICIES
from benchmarks.simulate.run import Options, Outcome, Run
from benchmarks.simulate.traces import Replay, read_trace
from benchmarks.simulate.workload import generate


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated: `options` holds for all policies, but admission is ours alone."""

    load: float = 0.85
    hours: float = 8.0
    seeds: Sequence[int] = (1, 2, 3, 4, 5)
    options: Options = field(default_factory=Options)
    trace: Path | None = None
    policies: Sequence[str] = tuple(POLICIES)


@dataclass(frozen=True, slots=True)
class Summary:
    """One policy over all seeds.

    Attributes:
        late_ratio: late jobs over admitted ones.
        swaps: mean of a run.
        small_tenant_slowdown_p50: median over the jobs of small tenants.
        jobs, refused: sums.
        slowdown_by_tenant: median of each tenant's jobs.
    """

    late_ratio: float
    swaps: float
    small_tenant_slowdown_p50: float
    jobs: int
    refused: int
    slowdown_by_tenant: Mapping[str, float]


def summary(outcomes: Sequence[Outcome]) -> Summary:
    """The figures of at least one run."""
    tenants = sorted({name for outcome in outcomes for name in outcome.by_tenant})
    jobs = sum(outcome.jobs for outcome in outcomes)
    small = list(chain.from_iterable(outcome.slowdowns for outcome in outcomes))
    return Summary(
        late_ratio=sum(outcome.late for outcome in outcomes) / max(1, jobs),
        swaps=sum(outcome.swaps for outcome in outcomes) / len(outcomes),
        small_tenant_slowdown_p50=median(small) if small else 0.0,
        jobs=jobs,
        refused=sum(outcome.refused for outcome in outcomes),
        slowdown_by_tenant={
            name: median(chain.from_iterable(outcome.by_tenant.get(name, ()) for outcome in outcomes))
            for name in tenants
        },
    )


def simulate(scenario: Scenario, policy: str, seed: int) -> Outcome:
    """One run."""
    source = Replay(read_trace(scenario.trace)) if scenario.trace else None
    options = scenario.options
    if policy != "ours":
        options = replace(options, admission=False)
    workload = generate(seed, scenario.load, scenario.hours, options.slots, source)
    return Run(workload, POLICIES[policy], options).execute()


def compare(scenario: Scenario) -> dict[str, Summary]:
    """Every policy over every seed."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        runs = {
            policy: [pool.submit(simulate, scenario, policy, seed) for seed in scenario.seeds]
            for policy in scenario.policies
        }
        return {policy: summary([run.result() for run in futures]) for policy, futures in runs.items()}

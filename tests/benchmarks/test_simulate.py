"""The simulator: golden figures of a short run, honest yardsticks, trace formats, and what it prints.

The figures follow from the seed and the core alone. A change of the policy may move them: then look at the full table
(`python -m benchmarks.simulate`), and write the new ones down with the change.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.simulate.__main__ import main
from benchmarks.simulate.compare import Scenario, simulate, summary
from benchmarks.simulate.policies import POLICIES
from benchmarks.simulate.run import Options, Run
from benchmarks.simulate.traces import Replay, read_trace
from benchmarks.simulate.workload import Formula, generate

SHORT = Scenario(load=0.85, hours=1.0, seeds=(7,))

GOLDEN: dict[str, tuple[int, int, float]] = {
    "edf": (0, 134, 6.919),
    "edf_affinity": (0, 68, 5.627),
    "fair": (0, 151, 4.893),
    "fifo": (0, 122, 8.386),
    "ours": (0, 56, 3.365),
}
"""(late jobs, swaps, median slowdown of small tenants' jobs) of a run over one hour."""


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_golden_figures(policy: str):
    outcome = simulate(SHORT, policy, 7)
    assert (outcome.late, outcome.swaps, round(outcome.slowdown, 3)) == GOLDEN[policy]


def test_ours_keeps_small_tenants_fast_with_few_swaps():
    ours, edf, fifo = (simulate(SHORT, policy, 7) for policy in ("ours", "edf", "fifo"))
    assert ours.swaps < 0.5 * edf.swaps
    assert ours.slowdown < 0.6 * min(edf.slowdown, fifo.slowdown)
    assert ours.late == 0


def test_a_workload_has_the_load_that_was_asked_for_and_follows_its_seed():
    workload = generate(3, 0.5, 2.0, 8)
    assert workload.seconds == pytest.approx(0.5 * 8 * 7200, rel=0.02)
    assert [job.deadline for job in generate(3, 0.5, 2.0, 8).jobs] == [job.deadline for job in workload.jobs]
    assert [job.deadline for job in generate(4, 0.5, 2.0, 8).jobs] != [job.deadline for job in workload.jobs]
    arrivals = [job.arrival for job in workload.jobs]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] == pytest.approx(7200)


def test_lengths_are_shaped_as_the_sources_say():
    chance = np.random.Generator(np.random.PCG64(1))
    jobs = [Formula().rows(chance, 1e6) for _ in range(20)]
    outputs = np.concatenate([output / output.mean() for _, output in jobs])
    # The standard deviation of an exponential distribution is its mean; prompts have a longer tail.
    assert outputs.std() == pytest.approx(1, abs=0.1)
    prompts = np.concatenate([prompt / prompt.mean() for prompt, _ in jobs])
    assert np.percentile(prompts, 99.5) > 4
    gaps = Formula().gaps(chance, 20_000)
    assert gaps.std() / gaps.mean() == pytest.approx(3, rel=0.1)


def test_all_work_is_done_once_and_time_adds_up():
    workload = generate(5, 0.6, 0.5, 8)
    outcome = Run(workload, POLICIES["ours"], Options()).execute()
    assert outcome.jobs == len(workload.jobs) == sum(len(each) for each in outcome.by_tenant.values())
    assert 0 < outcome.busy <= 1
    assert all(slowdown > 0.99 for each in outcome.by_tenant.values() for slowdown in each)


def test_admission_refuses_what_cannot_hold_and_fewer_are_late():
    crowded = Scenario(load=8.0, hours=0.5, options=Options(oracle=True, admission=True))
    outcome = simulate(crowded, "ours", 7)
    everything = simulate(replace(crowded, options=Options(oracle=True)), "ours", 7)
    assert outcome.refused > 0
    assert everything.refused == 0
    assert outcome.late < everything.late


def test_both_trace_formats_become_workloads(tmp_path: Path):
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:09.1,110,27\n"
    )
    assert [request[1:] for request in read_trace(azure)] == [(4808, 10), (3180, 8), (110, 27)]
    mooncake = tmp_path / "mooncake.jsonl"
    mooncake.write_text(
        '{"timestamp": 0, "input_length": 6955, "output_length": 52, "hash_ids": [1]}\n'
        '{"timestamp": 3000, "input_length": 12, "output_length": 500, "hash_ids": []}\n'
    )
    requests = read_trace(mooncake)
    assert requests == [(0.0, 6955, 52), (3.0, 12, 500)]
    workload = generate(1, 0.3, 0.2, 8, Replay(requests))
    assert {int(job.outputs[1]) for job in workload.jobs} <= {52, 500}
    outcome = simulate(Scenario(load=0.3, hours=0.2, trace=mooncake), "ours", 1)
    assert outcome.jobs == len(workload.jobs)


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", '{"timestamp": 1}\n', "TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,2\n"]
)
def test_other_files_are_refused_by_name_and_line(tmp_path: Path, text: str):
    path = tmp_path / "odd.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"odd\.txt"):
        read_trace(path)


def test_the_command_prints_what_is_asked_for(capsys: pytest.CaptureFixture[str]):
    arguments = ["--hours", "0.2", "--seeds", "1", "--policies", "edf,ours"]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["policies"].keys() == {"edf", "ours"}
    for figures in printed["policies"].values():
        assert {"late_ratio", "swaps", "small_tenant_slowdown_p50"} <= figures.keys()
    assert main(arguments) == 0
    assert "small p50" in capsys.readouterr().out


def test_a_summary_pools_the_jobs_of_all_seeds():
    outcomes = [simulate(Scenario(load=0.5, hours=0.2), "ours", seed) for seed in (1, 2)]
    pooled = summary(outcomes)
    assert pooled.jobs == sum(outcome.jobs for outcome in outcomes)
    assert pooled.swaps == sum(outcome.swaps for outcome in outcomes) / 2

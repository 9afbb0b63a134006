"""The scheduler's benchmark at a tiny size: it runs and prints what it promises. Nothing here is about speed."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import peers, pinned, scheduler
from benchmarks.peers import PEERS, Peer
from benchmarks.scheduler import Size

TINY = Size(
    callers=4, seconds=0.2, repeats=2, probes=2, decisions=100, open_jobs=(10, 100), peer_jobs=20, peer_repeats=2
)

NO_PEER = Peer("nothing", ("no-such-package==0",), "never", node=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> scheduler.Measured:
    return scheduler.measure(TINY, tmp_path_factory.mktemp("scheduler"), [])


def test_it_measures_real_cycles_on_both_ledgers(measured: scheduler.Measured) -> None:
    assert measured.cycles.keys() == {"sqlite", "redis"}
    for name, side in measured.cycles.items():
        assert 0 < side.min <= side.median <= side.max
        assert side.runs == measured.single_cycles[name].runs == TINY.repeats
        assert measured.single_cycles[name].min > 0
        assert measured.first_lease[name].runs == TINY.probes
        assert measured.events_per_append[name] >= 1


def test_decisions_keep_the_population_steady(measured: scheduler.Measured) -> None:
    assert {jobs: len(times) for jobs, times in measured.decisions.items()} == {"10": 100, "100": 100}
    assert all(time > 0 for times in measured.decisions.values() for time in times)


def test_the_json_has_the_promised_keys(measured: scheduler.Measured) -> None:
    found = json.loads(json.dumps(scheduler.as_json(measured)))
    assert found["cycles_per_s"].keys() == {"sqlite", "redis"}
    assert found["decision_p99_ms"].keys() == {"10", "100"}
    assert found["decision_p99_ms"]["100"] >= found["decision_p50_ms"]["100"] > 0
    assert found["submit_to_first_lease_ms"] > 0
    assert found["cycles_per_fsync"]["redis"] == pytest.approx(
        found["cycles_per_s"]["redis"] / found["fsync_per_s"], rel=0.01
    )
    assert found["peers"] == {}


def test_a_table_names_each_figure(measured: scheduler.Measured) -> None:
    lines = scheduler.as_table(measured).splitlines()
    assert sum("cycles /s" in line for line in lines) == 2
    assert sum("open jobs" in line for line in lines) == 2


def test_a_peer_that_cannot_be_had_is_skipped_by_name(
    measured: scheduler.Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    result = scheduler.run_peer(NO_PEER, TINY, tmp_path)
    assert isinstance(result, str)
    with_peer = replace(measured, peers={"nothing": result})
    assert "npm or node is not installed" in scheduler.as_json(with_peer)["peers"]["nothing"]["skipped"]


def test_a_peer_drains_what_was_enqueued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of the peers, walked by a program that needs no environment of its own."""
    side = tmp_path / "side.py"
    side.write_text("import sys\nport, jobs, in_flight = map(int, sys.argv[1:])\nprint(jobs * in_flight)")
    monkeypatch.setattr(Peer, "command", lambda _peer: [sys.executable, str(side)])
    found = peers.drain(NO_PEER, tmp_path, TINY.peer_jobs, TINY.callers, TINY.peer_repeats)
    assert (found.median, found.runs) == (80.0, 2)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_each_peer_has_exact_versions_and_a_program(peer: Peer) -> None:
    assert (peers.SIDES / f"{peer.name}_side.{'mjs' if peer.node else 'py'}").exists()
    pin = "@" if peer.node else "=="
    assert all(package.partition(pin)[2].count(".") == 2 for package in peer.packages)


def test_each_side_has_one_core() -> None:
    command = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
    assert [pinned.run(command, core, 30) for core in pinned.cores()] == ["1", "1"]

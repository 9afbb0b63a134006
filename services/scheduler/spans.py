"""Spans inside the trace of a job: whoever calls, the job's own trace shows what became of it."""

from collections.abc import Generator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span
from opentelemetry.util.types import AttributeValue

from tidemill import telemetry

_tracer = telemetry.tracer(__name__)


@contextmanager
def job_span(name: str, traceparent: str, **attributes: AttributeValue) -> Generator[Span]:
    """A span in the job's trace around some work, linked with the span of the RPC that does it.

    None is kept of an untraced job in an untraced call.
    """
    if not _traced(traceparent):
        yield trace.INVALID_SPAN
        return
    parent, links = _place(traceparent)
    with _tracer.start_as_current_span(name, parent, links=links, attributes=attributes) as span:
        yield span


def job_moment(name: str, traceparent: str, start_ns: int, **attributes: AttributeValue) -> None:
    """A span in the job's trace from `start_ns` until now, for work that turned out to be the job's."""
    if not _traced(traceparent):
        return
    parent, links = _place(traceparent)
    _tracer.start_span(name, parent, links=links, attributes=attributes, start_time=start_ns).end()


def _traced(traceparent: str) -> bool:
    return bool(traceparent) or trace.get_current_span().get_span_context().is_valid


def _place(traceparent: str) -> tuple[Context | None, list[Link]]:
    """Parent and links: below the RPC's span when that is in the job's trace already."""
    caller = trace.get_current_span().get_span_context()
    if not traceparent or telemetry.trace_id_of(traceparent) == format(caller.trace_id, "032x"):
        return None, []
    return telemetry.context_from_traceparent(traceparent), [Link(caller)] if caller.is_valid else []

"""Traces and logs of a process.

Spans go to an OpenTelemetry collector when the standard `OTEL_EXPORTER_OTLP_*` variables name one, else to
`<telemetry folder>/<service>.spans.jsonl`. Logs are JSON lines on standard error and in `<service>.log.jsonl`. Export
never blocks work: spans are queued, and dropped when the queue is full.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import structlog
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

TRACE_METADATA = ("traceparent", "tracestate")
"""gRPC metadata that carries a trace."""

_FILE_BYTES = 32 << 20
_FILE_BACKUPS = 2


class SpanFileExporter(SpanExporter):
    """Appends finished spans to a rotating file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._handler = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_FILE_BACKUPS, delay=True)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        # One record: the handler checks and flushes its file for each.
        lines = "\n".join(span.to_json(indent=None) for span in spans)
        self._handler.emit(logging.LogRecord("span", logging.INFO, "", 0, lines, None, None))
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._handler.close()


def setup(service: str, folder: Path) -> None:
    """Install tracing and logging for this process; `folder` is made when missing."""
    setup_tracing(service, folder)
    _setup_logging(service, folder)


def setup_tracing(service: str, folder: Path) -> None:
    """Install tracing alone, where the logs belong to somebody else (Ray's workers)."""
    trace.set_tracer_provider(tracer_provider(service, folder))


def tracer_provider(service: str, folder: Path) -> TracerProvider:
    """Where spans of `service` go, for a process whose global tracing is not ours (Dagster's code server).

    `folder` is made when missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    provider = TracerProvider(resource=Resource.create({"service.name": f"tidemill-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(_exporter(service, folder)))
    return provider


def shutdown() -> None:
    """Write out what is queued; call before the process ends."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def _exporter(service: str, folder: Path) -> SpanExporter:
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return SpanFileExporter(folder / f"{service}.spans.jsonl")
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").startswith("http"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter()
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter()


def _setup_logging(service: str, folder: Path) -> None:
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handlers: list[logging.Handler] = [
        logging.StreamHandler(sys.stderr),
        RotatingFileHandler(folder / f"{service}.log.jsonl", maxBytes=_FILE_BYTES, backupCount=_FILE_BACKUPS),
    ]
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _add_trace_id(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
    return event


def logger(name: str) -> Any:
    """A structured logger: `logger("x").info("event", key=value)`."""
    return structlog.get_logger(name)


def tracer(name: str) -> Tracer:
    """A tracer for the module `name`."""
    return trace.get_tracer(name)


def current_traceparent() -> str:
    """W3C traceparent of the current span; empty when there is none."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def context_from_traceparent(traceparent: str) -> Context:
    """Context whose parent span is `traceparent`; an empty or malformed one gives an empty context."""
    return propagate.extract({"traceparent": traceparent} if traceparent else {})


def context_from_metadata(metadata: Mapping[str, str]) -> Context:
    """Context that a caller sent in gRPC metadata."""
    return propagate.extract({key: metadata[key] for key in TRACE_METADATA if key in metadata})


def trace_id_of(traceparent: str) -> str:
    """The 32 hex digits of the trace id; empty for an empty or malformed traceparent."""
    context = trace.get_current_span(context_from_traceparent(traceparent)).get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else ""

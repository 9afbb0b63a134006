"""W3C trace context for outgoing calls, without the OpenTelemetry SDK."""

import secrets
import sys


def traceparent() -> str:
    """The active OpenTelemetry span's context if the program uses OpenTelemetry, else the root of a new trace."""
    return _active() or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def _active() -> str:
    # A program with an active span has imported the API already; importing it for others would cost start-up time.
    if "opentelemetry.trace" not in sys.modules:
        return ""
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

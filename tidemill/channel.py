"""How our processes call each other: one channel, one way to call."""

import time
from typing import Any, cast

import grpc
import grpc.aio

from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.renewing import RenewingChannel
from tidemill.serving import deadline
from tidemill.status import from_rpc_error
from tidemill.tls import Certificates, TlsFiles

# Part of the caller's time is kept back so that its own answer still arrives.
_MARGIN_SECONDS = 0.05


_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str, tls: TlsFiles | None = None) -> grpc.aio.Channel:
    """A channel to a process of ours; it reconnects by itself within a second.

    Without `tls` it is plaintext. With it, both ends show a certificate, and connections follow the files.
    """
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    certificates = Certificates(tls)

    def connect() -> grpc.aio.Channel:
        return grpc.aio.secure_channel(address, certificates.channel_credentials(), options=_OPTIONS)

    return cast("grpc.aio.Channel", RenewingChannel(connect, certificates.changed))


async def call(method: Any, request: Any, timeout: float = 10.0) -> Any:  # noqa: ASYNC109 - a gRPC deadline
    """Make a unary call within `timeout` seconds, or less where the RPC being handled has less left.

    The current span's context goes with it. Failures are raised as TidemillError.
    """
    try:
        return await method(request, timeout=_seconds_left(timeout), metadata=trace_metadata())
    except grpc.aio.AioRpcError as exc:
        raise from_rpc_error(exc) from None


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Metadata that continues the current trace."""
    traceparent = telemetry.current_traceparent()
    return (("traceparent", traceparent),) if traceparent else ()


def _seconds_left(timeout: float) -> float:
    end = deadline.get()
    if end is None:
        return timeout
    remaining = end - time.monotonic() - _MARGIN_SECONDS
    if remaining <= 0:
        raise TidemillError(Reason.DEADLINE_EXCEEDED, "the caller's deadline has passed")
    return min(timeout, remaining)

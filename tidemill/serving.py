"""The gRPC server that gateway and scheduler share: bounded, traced, measured, with health, reflection and a drain."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import Counter, Histogram

from tidemill import ops, telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.interception import HandlerWrapper, Stream, Unary
from tidemill.malformed import WellFormed
from tidemill.open_calls import OpenCalls
from tidemill.status import STATUS_OF, abort
from tidemill.tls import Certificates, TlsFiles

log = telemetry.logger(__name__)

deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
"""When the RPC being handled must be over, by `time.monotonic()`; `tidemill.channel.call` passes it on."""

_CALLS = Counter("tidemill_rpc_total", "RPCs answered.", ["method", "code"])
_SECONDS = Histogram("tidemill_rpc_seconds", "Duration of unary RPCs in seconds.", ["method"])

# BDP probing lets a stalled stream hold megabytes; without it 64 KiB suffice (shared research, gRPC B2).
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 << 10),
    ("grpc.http2.write_buffer_size", 64 << 10),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client that vanished without a word is noticed within a minute and a half.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # One that never says what it wants is let go, and so is one that has wanted nothing for long: it may come back.
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 15 * 60_000),
)


@dataclass(frozen=True)
class Served:
    """A server that listens: where, and how to tell its health."""

    address: str
    set_serving: Callable[[bool], Awaitable[None]]


@dataclass(frozen=True)
class ServerSpec:
    """What a process serves.

    Attributes:
        address, http_address: `host:port`; port 0 takes a free one.
        services: full names of the gRPC services, for health and reflection.
        register: adds the servicers to the server.
        ready: the process's own opinion, beside that of its server.
        drain: told to finish its streams once no new calls are accepted.
        lead: runs while the process serves, and says when its services are healthy; without it they always are. Its
            end ends the process.
        max_message_bytes: larger requests are refused by gRPC.
        max_calls: calls beyond so many at a time are refused.
        tls: the server's certificate; with a CA, clients must show one of it too.
        tls_remedy: which settings give it one.
        plaintext: whether it may be reachable from other machines without.
        interceptors: around each call, inside of what every server does.
        traces: begin a trace for a call that brings none; without, such a call leaves no span.
        grace_seconds: open calls get so long at shutdown.
    """

    address: str
    http_address: str
    services: Sequence[str]
    register: Callable[[grpc.aio.Server], None]
    ready: Callable[[], ops.Readiness]
    drain: Callable[[], Awaitable[None]] | None = None
    lead: Callable[[Served], Coroutine[Any, Any, None]] | None = None
    ready_file: Path | None = None
    max_message_bytes: int = 4 << 20
    max_calls: int = 8192
    tls: TlsFiles | None = None
    tls_remedy: str = "give it some"
    plaintext: bool = False
    interceptors: Sequence[HandlerWrapper] = ()
    traces: bool = True
    grace_seconds: float = 10.0


async def serve(spec: ServerSpec) -> None:
    """Serve until SIGTERM or SIGINT, then drain: health NOT_SERVING, streams finish, open calls get the grace.

    Raises INVALID_ARGUMENT for certificates that cannot be used, and for plaintext beyond loopback.
    """
    stop = shutdown_event()
    server = grpc.aio.server(
        # Errors and traces, then who may, then whether what was sent can be read.
        interceptors=[_Edge(spec.traces), OpenCalls(), *spec.interceptors, WellFormed()],
        options=[*_OPTIONS, ("grpc.max_receive_message_length", spec.max_message_bytes)],
        maximum_concurrent_rpcs=spec.max_calls,
    )
    spec.register(server)
    checker = cast("Any", health).aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    names = [*spec.services, health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    host = spec.address.rpartition(":")[0]
    port = _add_port(server, spec)
    await server.start()
    operators = ops.OpsServer(spec.http_address, lambda: _readiness(spec, stop))
    set_serving = _health(checker, ("", *spec.services))
    await set_serving(spec.lead is None)
    leading = _begin(spec.lead, Served(f"{host}:{port}", set_serving), stop)
    ops.write_ready_file(spec.ready_file, f"{host}:{port}", operators.address)
    log.info("serving", address=f"{host}:{port}", http_address=operators.address)
    await stop.wait()
    log.info("draining")
    await checker.enter_graceful_shutdown()
    if leading is not None:
        leading.cancel()
        await asyncio.wait([leading])
    if spec.drain is not None:
        await spec.drain()
    await server.stop(spec.grace_seconds)
    operators.close()
    log.info("stopped")
    if leading is not None and not leading.cancelled():
        leading.result()


def _add_port(server: grpc.aio.Server, spec: ServerSpec) -> int:
    if spec.tls is not None:
        return server.add_secure_port(spec.address, Certificates(spec.tls).server_credentials())
    if not spec.plaintext and not _is_loopback(spec.address):
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"{spec.address} is reachable from other machines and has no certificate: {spec.tls_remedy}, or set "
            "TIDEMILL_PLAINTEXT=true where a private network or a proxy with TLS protects it",
            metadata={"address": spec.address},
        )
    return server.add_insecure_port(spec.address)


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _health(checker: Any, names: Sequence[str]) -> Callable[[bool], Awaitable[None]]:
    async def set_serving(serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for name in names:
            await checker.set(name, states.SERVING if serving else states.NOT_SERVING)

    return set_serving


def _begin(
    lead: Callable[[Served], Coroutine[Any, Any, None]] | None, served: Served, stop: asyncio.Event
) -> "asyncio.Task[None] | None":
    if lead is None:
        return None
    task = asyncio.create_task(lead(served), name="lead")
    task.add_done_callback(lambda _: stop.set())
    return task


def shutdown_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event


def _readiness(spec: ServerSpec, stop: asyncio.Event) -> ops.Readiness:
    if stop.is_set():
        return ops.Readiness(False, {"reason": "draining"})
    return spec.ready()


class _Edge(HandlerWrapper):
    """Around each call: continue the caller's trace, note its deadline, turn errors into statuses, count it."""

    def __init__(self, traces: bool) -> None:
        super().__init__()
        self._traces = traces

    def wrap_unary(self, method: str, behavior: Unary, *, streamed: bool) -> Unary:  # noqa: ARG002 - of no matter here
        """Likewise."""
        seconds = _SECONDS.labels(f"/{method}")

        async def handle(request: Any, context: Any) -> Any:
            span = _enter(method, context, self._traces)
            started = time.monotonic()
            try:
                response = await behavior(request, context)
            except BaseException as exc:
                await _fail(method, span, context, exc)
                raise
            seconds.observe(time.monotonic() - started)
            _leave(method, span, grpc.StatusCode.OK)
            return response

        return handle

    def wrap_stream(self, method: str, behavior: Stream, *, streamed: bool) -> Stream:  # noqa: ARG002 - likewise
        """Likewise."""

        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            span = _enter(method, context, self._traces)
            try:
                async with aclosing(cast("Any", behavior(request, context))) as responses:
                    async for response in responses:
                        yield response
            except BaseException as exc:
                await _fail(method, span, context, exc)
                raise
            _leave(method, span, grpc.StatusCode.OK)

        return handle


def _enter(method: str, context: Any, traces: bool) -> trace.Span:
    remaining = context.time_remaining()
    deadline.set(None if remaining is None else time.monotonic() + remaining)
    metadata = {key: value for key, value in context.invocation_metadata() or () if key in telemetry.TRACE_METADATA}
    if not metadata and not traces:
        return trace.INVALID_SPAN
    # Each RPC runs in a task of its own, so what is attached here ends with it and is never detached.
    parent = telemetry.context_from_metadata(metadata)
    span = telemetry.tracer(__name__).start_span(method, parent, kind=SpanKind.SERVER)
    otel_context.attach(trace.set_span_in_context(span))
    return span


def _leave(method: str, span: trace.Span, code: grpc.StatusCode) -> None:
    _CALLS.labels(f"/{method}", code.name).inc()
    span.set_attribute("rpc.grpc.status_code", cast("tuple[int, str]", code.value)[0])
    if code is not grpc.StatusCode.OK:
        span.set_status(Status(StatusCode.ERROR, code.name))
    span.end()


async def _fail(method: str, span: trace.Span, context: Any, exc: BaseException) -> None:
    match exc:
        case TidemillError():
            _leave(method, span, STATUS_OF[exc.reason])
            await abort(context, exc)
        case asyncio.CancelledError() | GeneratorExit():
            _leave(method, span, grpc.StatusCode.CANCELLED)
        case grpc.aio.AbortError() | grpc.aio.BaseError():
            _leave(method, span, context.code() or grpc.StatusCode.UNKNOWN)
        case Exception():
            log.exception("rpc failed", method=method, exc_info=exc)
            _leave(method, span, grpc.StatusCode.INTERNAL)
            await abort(context, TidemillError(Reason.INTERNAL, "internal error; the server's log has the details"))
        case _:
            _leave(method, span, grpc.StatusCode.INTERNAL)

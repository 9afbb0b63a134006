"""The gRPC server that gateway and scheduler share: bounded, traced, measured, with health, reflection and a drain."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
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
from tidemill.malformed import checked, tolerant
from tidemill.status import STATUS_OF, abort

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
    max_calls: int = 4096
    traces: bool = True
    grace_seconds: float = 10.0


async def serve(spec: ServerSpec) -> None:
    """Serve until SIGTERM or SIGINT, then drain: health NOT_SERVING, streams finish, open calls get the grace."""
    stop = shutdown_event()
    server = grpc.aio.server(
        interceptors=[_Edge(spec.traces)],
        options=[*_OPTIONS, ("grpc.max_receive_message_length", spec.max_message_bytes)],
        maximum_concurrent_rpcs=spec.max_calls,
    )
    spec.register(server)
    checker = cast("Any", health).aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    names = [*spec.services, health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    host = spec.address.rpartition(":")[0]
    port = server.add_insecure_port(spec.address)
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


class _Edge(cast("Any", grpc.aio).ServerInterceptor):
    """Around each call: continue the caller's trace, note its deadline, turn errors into statuses, count it."""

    def __init__(self, traces: bool) -> None:
        self._traces = traces
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method
        # A method's handler is the same for every call, so it is wrapped once.
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith("/tidemill."):
            return handler
        wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        wrap = _wrap_stream if handler.response_streaming else _wrap_unary
        if handler.request_streaming:
            behavior = handler.stream_stream or handler.stream_unary
        else:
            behavior = handler.unary_stream or handler.unary_unary
        factory = _FACTORIES[handler.request_streaming, handler.response_streaming]
        return factory(
            wrap(method, behavior, self._traces),
            request_deserializer=tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )


_FACTORIES: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _wrap_unary(method: str, behavior: Any, traces: bool) -> Any:
    seconds = _SECONDS.labels(method)

    async def handle(request: Any, context: Any) -> Any:
        span = _enter(method, context, traces)
        started = time.monotonic()
        try:
            response = await behavior(checked(request), context)
        except BaseException as exc:
            await _fail(method, span, context, exc)
            raise
        seconds.observe(time.monotonic() - started)
        _leave(method, span, grpc.StatusCode.OK)
        return response

    return handle


def _wrap_stream(method: str, behavior: Any, traces: bool) -> Any:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        span = _enter(method, context, traces)
        try:
            async with aclosing(behavior(checked(request), context)) as responses:
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
    span = telemetry.tracer(__name__).start_span(method.lstrip("/"), parent, kind=SpanKind.SERVER)
    otel_context.attach(trace.set_span_in_context(span))
    return span


def _leave(method: str, span: trace.Span, code: grpc.StatusCode) -> None:
    _CALLS.labels(method, code.name).inc()
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

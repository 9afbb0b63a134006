"""The channel to the gateway, and calls on it that survive its restarts."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from tidemill.client.calls import CALL_SECONDS, Call
from tidemill.client.cursors import Cursor
from tidemill.client.settings import Connection
from tidemill.client.tracing import traceparent
from tidemill.errors import Reason, TidemillError
from tidemill.status import from_rpc_error
from tidemill.v1.admin_service_pb2_grpc import AdminServiceStub
from tidemill.v1.job_service_pb2_grpc import JobServiceStub
from tidemill.v1.model_service_pb2_grpc import ModelServiceStub
from tidemill.v1.quota_service_pb2_grpc import QuotaServiceStub

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
FIRST_CONTACT_SECONDS = 5.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
# DEADLINE_EXCEEDED is ours: each call is bounded so that a dead connection cannot hang the program.
_RETRIED = frozenset({Reason.UNAVAILABLE, Reason.OVERLOADED, Reason.RATE_EXCEEDED, Reason.DEADLINE_EXCEEDED})

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 8 << 20),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def channel_options(connection: Connection) -> tuple[tuple[str, Any], ...]:
    """Options of a channel, threaded or not."""
    host = connection.address.rpartition(":")[0].strip("[]")
    # A proxy is for the world outside; loopback is never behind one.
    local = (("grpc.enable_http_proxy", 0),) if host in ("localhost", "127.0.0.1", "::1") else ()
    return (*_OPTIONS, *local)


class Link:
    """What both transports know of the gateway: its address, the key, and how patient to be."""

    def __init__(self, connection: Connection, patience: float = PATIENCE_SECONDS) -> None:
        """`patience`: seconds without progress after which an unreachable service is reported."""
        self.address = connection.address
        self.reached = False
        self._patience = patience
        self._authorization = f"Bearer {connection.api_key}"

    def metadata(self, parent: str = "") -> tuple[tuple[str, str], ...]:
        """What goes with a call: the key and the trace that it belongs to."""
        return (("authorization", self._authorization), ("traceparent", parent or traceparent()))

    def backoff(self) -> "Backoff":
        """Pauses for one operation. A service never reached so far is given up soon: the address may be wrong."""
        return Backoff(self._patience if self.reached else min(self._patience, FIRST_CONTACT_SECONDS))

    def typed(self, exc: grpc.RpcError) -> TidemillError:
        """The typed form of `exc`; a service that cannot be reached is named with its address and the remedy."""
        error = from_rpc_error(exc)
        if error.reason is Reason.UNAVAILABLE and "status" in error.metadata:
            message = (
                f"no Tidemill service answers at {self.address} ({_short(error.message)}); is `tidemill up` running?"
            )
            return TidemillError(error.reason, message, metadata={**error.metadata, "address": self.address})
        if error.reason is Reason.OVERLOADED and "larger than max" in error.message:
            return TidemillError(Reason.FRAME_TOO_LARGE, error.message, metadata=error.metadata)
        return error

    def timeout(self, call: Call[Any]) -> float:
        """Seconds for one attempt: an ordinary call waits no longer than the patience."""
        return min(call.timeout, self._patience) if call.timeout == CALL_SECONDS else call.timeout

    def ended(self) -> TidemillError:
        """The error of an endless stream that the server ended."""
        return TidemillError(Reason.UNAVAILABLE, f"{self.address} ended a stream too early")


class Transport(Link):
    """Stubs over one channel. Calls may come from several threads."""

    def __init__(self, connection: Connection, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__(connection, patience)
        options = channel_options(connection)
        if connection.tls:
            self.channel = grpc.secure_channel(connection.address, grpc.ssl_channel_credentials(connection.ca), options)
        else:
            self.channel = grpc.insecure_channel(connection.address, options)
        self.jobs = JobServiceStub(self.channel)
        self.models = ModelServiceStub(self.channel)
        self.admin = AdminServiceStub(self.channel)
        self.quotas = QuotaServiceStub(self.channel)

    def call(self, call: Call[T], *, trace: str = "") -> T:
        """Make `call`; repeated while the service is away, at most for the patience. Raises TidemillError."""
        method: Callable[..., T] = getattr(getattr(self, call.service), call.method)
        metadata, backoff = self.metadata(trace), self.backoff()
        while True:
            try:
                result = method(call.request, timeout=self.timeout(call), metadata=metadata)
            except grpc.RpcError as exc:
                backoff.pause(self.typed(exc))
            else:
                self.reached = True
                return result

    def stream(self, cursor: Cursor[T], *, trace: str = "") -> Iterator[T]:
        """What `cursor` takes from its stream, which is opened again where it stood after a failure that may pass."""
        method, backoff = getattr(self.jobs, cursor.method), self.backoff()
        while True:
            call: Any = method(cursor.request(), timeout=cursor.timeout(), metadata=self.metadata(trace))
            try:
                for response in call:
                    self.reached = True
                    backoff.reset()
                    yield from cursor.take(response)
                    if cursor.done:
                        return
                if not cursor.endless:
                    return
                backoff.pause(self.ended())
            except grpc.RpcError as exc:
                backoff.pause(self.typed(exc))
            finally:
                call.cancel()

    def close(self) -> None:
        """Close the channel; calls in progress end as cancelled."""
        self.channel.close()


@dataclass
class Backoff:
    """Pauses between attempts: exponential with jitter, until `patience` seconds passed without a reset."""

    patience: float
    _pause: float = _FIRST_PAUSE
    _since: float = field(default_factory=time.monotonic)

    def reset(self) -> None:
        """Note progress."""
        self._pause, self._since = _FIRST_PAUSE, time.monotonic()

    def delay(self, error: TidemillError) -> float:
        """Seconds to wait before the next attempt; raises `error` when it will not pass or the patience is over."""
        seconds = max(self._pause * random.uniform(0.8, 1.2), error.retry_after or 0)  # noqa: S311 - jitter
        if error.reason not in _RETRIED or time.monotonic() + seconds - self._since > self.patience:
            raise error
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return seconds

    def pause(self, error: TidemillError) -> None:
        """Wait for the `delay`."""
        time.sleep(self.delay(error))


def _short(text: str) -> str:
    # gRPC's text is a chain of causes; the last one says it.
    return " ".join(text.split()).rpartition(": ")[2][:120]

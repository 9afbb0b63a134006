"""The gateway's RPCs that Dagster makes."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import dagster as dg
import grpc

from tidemill.client.settings import connection_to
from tidemill.errors import Reason, TidemillError
from tidemill.status import from_rpc_error
from tidemill.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

# Reasons that pass by themselves: the next tick tries again.
AWAY = frozenset({Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.OVERLOADED, Reason.RATE_EXCEEDED})

# Entries a call. A slice may be too much: the gateway reads sample answers for each entry, which can be slow or long.
# Tried one after the other they end within the minute that Dagster gives a tick.
_SLICES = (200, 20, 1)
_TOO_MUCH = frozenset({Reason.DEADLINE_EXCEEDED, Reason.OVERLOADED})

_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    # A slice of the feed carries up to five sample answers an entry.
    ("grpc.max_receive_message_length", 64 << 20),
]


class TidemillGateway(dg.ConfigurableResource[Any]):
    """Tidemill's public gateway.

    Attributes:
        address: `host:port` of the gateway, or `grpcs://host:port` for TLS.
        api_key: key of the tenant whose jobs Dagster shows.
        ca: PEM file of who may sign for the gateway; it means TLS. Empty: whom the system trusts.
        trace_url_template: page of a trace with `{trace_id}` in it; empty where there is none.
        timeout_seconds: longest time of a call.
    """

    address: str
    api_key: str
    ca: str = ""
    trace_url_template: str = ""
    timeout_seconds: float = 15.0

    def read_feed(self, after_sequence: int) -> job_service_pb2.ListCompletionsResponse:
        """The feed above `after_sequence`, in a slice that the gateway can serve in time. Raises TidemillError."""
        for limit in _SLICES:
            try:
                return self.list_completions(after_sequence, limit)
            except TidemillError as error:
                if error.reason not in _TOO_MUCH or limit == _SLICES[-1]:
                    raise
        raise AssertionError("no slice sizes")

    def list_completions(self, after_sequence: int, limit: int) -> job_service_pb2.ListCompletionsResponse:
        """A slice of the feed above `after_sequence`. Raises TidemillError."""
        request = job_service_pb2.ListCompletionsRequest(after_sequence=after_sequence, limit=limit)
        with self._stub() as stub:
            return stub.ListCompletions(request, timeout=self.timeout_seconds, metadata=self._metadata())

    def submit_job(self, messages: Iterable[job_service_pb2.SubmitJobRequest]) -> job_pb2.Job:
        """Create, fill and seal a job. Raises TidemillError."""
        with self._stub() as stub:
            return stub.SubmitJob(iter(messages), timeout=self.timeout_seconds, metadata=self._metadata())

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.api_key}"),)

    @contextmanager
    def _stub(self) -> "Generator[job_service_pb2_grpc.JobServiceStub]":
        # A channel a call: runs fork, and gRPC objects must not be there when they do.
        with self._channel() as channel:
            try:
                yield job_service_pb2_grpc.JobServiceStub(channel)
            except grpc.RpcError as exc:
                raise self._named(from_rpc_error(exc)) from None

    def _channel(self) -> grpc.Channel:
        to = connection_to(self.address, self.api_key, self.ca or None)
        if not to.tls:
            return grpc.insecure_channel(to.address, options=_OPTIONS)
        return grpc.secure_channel(to.address, grpc.ssl_channel_credentials(to.ca), options=_OPTIONS)

    def _named(self, error: TidemillError) -> TidemillError:
        message = f"gateway {self.address}: {error.message}"
        return TidemillError(
            error.reason,
            message,
            metadata=error.metadata,
            retry_after=error.retry_after,
            violations=error.violations,
        )

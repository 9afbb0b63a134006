"""Every RPC of the public services, by the descriptors, and a way to call one whatever its shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor, descriptor_pool, message_factory

import tidemill.v1
from tidemill.errors import TidemillError
from tidemill.status import from_rpc_error

SECONDS = 20.0


@dataclass(frozen=True)
class Rpc:
    """One method: its descriptor, and the message class of its requests and answers."""

    name: str
    method: descriptor.MethodDescriptor
    request: Any
    response: Any

    @property
    def streams(self) -> bool:
        """Whether it is open for long."""
        return self.method.client_streaming or self.method.server_streaming


def every_rpc() -> list[Rpc]:
    """The methods of all services in `tidemill.v1`."""
    found: list[Rpc] = []
    for path in sorted(Path(next(iter(tidemill.v1.__path__))).glob("*_service_pb2.py")):
        __import__(f"tidemill.v1.{path.stem}")
        file = descriptor_pool.Default().FindFileByName(f"tidemill/v1/{path.stem.removesuffix('_pb2')}.proto")
        for service in file.services_by_name.values():
            found.extend(_rpc(service, method) for method in service.methods)
    return found


def _rpc(service: Any, method: Any) -> Rpc:
    classes = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    return Rpc(f"{service.full_name}/{method.name}", method, *classes)


RPCS = every_rpc()


def call(channel: grpc.Channel, rpc: Rpc, request: Any, metadata: Sequence[tuple[str, str]] = ()) -> list[Any]:
    """All answers; raises TidemillError. It blocks."""
    kind = f"{_kind(rpc.method.client_streaming)}_{_kind(rpc.method.server_streaming)}"
    stub = getattr(channel, kind)(
        f"/{rpc.name}", request_serializer=rpc.request.SerializeToString, response_deserializer=rpc.response.FromString
    )
    argument = iter([request]) if rpc.method.client_streaming else request
    try:
        answer = stub(argument, metadata=tuple(metadata), timeout=SECONDS)
        return list(answer) if rpc.method.server_streaming else [answer]
    except grpc.RpcError as exc:
        raise from_rpc_error(exc) from None


def reason(channel: grpc.Channel, rpc: Rpc, request: Any, metadata: Sequence[tuple[str, str]] = ()) -> str:
    """What a call is refused for; `OK` for an answer."""
    try:
        call(channel, rpc, request, metadata)
    except TidemillError as exc:
        return exc.reason
    return "OK"


def _kind(streaming: bool) -> str:
    return "stream" if streaming else "unary"

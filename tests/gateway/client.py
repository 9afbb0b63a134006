"""A client of the generated stubs, and what tests need to read its errors."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Self, cast

import grpc
import grpc.aio
import pytest

from tidemill.errors import TidemillError
from tidemill.status import from_rpc_error
from tidemill.v1 import (
    admin_service_pb2_grpc,
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    row_pb2,
)

pb = job_service_pb2
TIMEOUT = 30.0
EOF: Any = cast("Any", grpc.aio).EOF
_LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 16 << 20)]


def prompts(start: int, count: int, text: str = "question") -> list[row_pb2.Row]:
    """Rows whose content follows from their index."""
    return [row_pb2.Row(custom_id=f"r{i}", prompt=f"{text} {i}") for i in range(start, start + count)]


class AppendStream:
    """An open append stream."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def send(self, offset: int, rows: Iterable[row_pb2.Row], **fields: Any) -> None:
        await self.call.write(pb.AppendRowsRequest(offset=offset, rows=rows, **fields))

    async def read(self) -> pb.AppendRowsResponse:
        response = await self.call.read()
        assert response is not EOF, "the stream ended"
        return response

    async def acked(self, offset: int) -> None:
        """Read until rows below `offset` are durable; every answer on the way must be an acknowledgement."""
        while True:
            response = await self.read()
            assert response.HasField("ack"), response
            if response.ack.next_offset >= offset:
                assert response.ack.next_offset == offset
                return

    async def error(self) -> pb.FrameError:
        """The next refusal."""
        while True:
            response = await self.read()
            if response.HasField("error"):
                return response.error

    async def finish(self) -> int:
        """Half-close, read everything that is left, return the last durable end acknowledged (-1 without one)."""
        await self.call.done_writing()
        end = -1
        while (response := await self.call.read()) is not EOF:
            if response.HasField("ack"):
                end = response.ack.next_offset
        return end


class GatewayClient:
    """Calls with a key; failures are raised as TidemillError."""

    def __init__(self, address: str, key: str | None) -> None:
        self.channel: Any = grpc.aio.insecure_channel(address, options=_LIMITS)
        self.jobs: Any = job_service_pb2_grpc.JobServiceStub(self.channel)
        # For calls that the server may end before all requests are out: there, grpc.aio loses the status.
        self.blocking_channel = grpc.insecure_channel(address, options=_LIMITS)
        self.blocking: Any = job_service_pb2_grpc.JobServiceStub(self.blocking_channel)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.admin: Any = admin_service_pb2_grpc.AdminServiceStub(self.channel)
        self.metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {key}"),) if key else ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        self.blocking_channel.close()

    async def unary(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, metadata=self.metadata, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc_error(exc) from None

    async def create(self, model: str, request_id: str = "", **fields: Any) -> job_pb2.Job:
        job = job_pb2.Job(model=model, **fields)
        return await self.unary(self.jobs.CreateJob, pb.CreateJobRequest(job=job, request_id=request_id))

    async def get(self, name: str) -> job_pb2.Job:
        return await self.unary(self.jobs.GetJob, pb.GetJobRequest(name=name))

    async def seal(self, name: str, row_count: int) -> job_pb2.Job:
        return await self.unary(self.jobs.SealJob, pb.SealJobRequest(name=name, row_count=row_count))

    async def cancel(self, name: str) -> job_pb2.Job:
        return await self.unary(self.jobs.CancelJob, pb.CancelJobRequest(name=name))

    async def list_models(self, **fields: Any) -> model_service_pb2.ListModelsResponse:
        return await self.unary(self.models.ListModels, model_service_pb2.ListModelsRequest(**fields))

    async def append(self, job: str) -> AppendStream:
        """An append stream that has answered its first, empty frame."""
        stream = AppendStream(self.jobs.AppendRows(metadata=self.metadata, timeout=TIMEOUT))
        await stream.send(0, [], job=job)
        first = await stream.read()
        assert first.HasField("ack")
        return stream

    async def fill(self, name: str, rows: Sequence[row_pb2.Row], frame_rows: int = 100) -> None:
        """Append rows to an empty job and wait until they are durable."""
        stream = await self.append(name)
        for start in range(0, len(rows), frame_rows):
            await stream.send(start, rows[start : start + frame_rows])
        assert await stream.finish() == len(rows)

    async def submit(
        self, job: job_pb2.Job, frames: Iterable[Sequence[row_pb2.Row]], request_id: str = ""
    ) -> job_pb2.Job:
        create = pb.CreateJobRequest(job=job, request_id=request_id)
        messages = chain([pb.SubmitJobRequest(create=create)], (pb.SubmitJobRequest(rows=rows) for rows in frames))
        return await self.submit_messages(messages)

    async def submit_messages(self, messages: Iterable[pb.SubmitJobRequest]) -> job_pb2.Job:
        try:
            return await asyncio.to_thread(
                self.blocking.SubmitJob, iter(messages), metadata=self.metadata, timeout=TIMEOUT
            )
        except grpc.RpcError as exc:
            raise from_rpc_error(exc) from None

    async def results(self, name: str, **fields: Any) -> list[pb.ReadResultsResponse]:
        """All frames of one reading."""
        request = pb.ReadResultsRequest(name=name, **fields)
        call = self.jobs.ReadResults(request, metadata=self.metadata, timeout=TIMEOUT)
        return await collect(call)


async def collect(call: Any) -> list[Any]:
    """All messages of a stream; its failure is raised as TidemillError."""
    messages: list[Any] = []
    try:
        while (message := await call.read()) is not EOF:
            messages.append(message)
        return messages
    except grpc.aio.AioRpcError as exc:
        raise from_rpc_error(exc) from None


def refused(reason: str) -> Any:
    """A context that expects a TidemillError of `reason`."""
    return pytest.raises(TidemillError, match=f"^{reason}: ")

"""Frames over bare gRPC, each answered by an acknowledgement and nothing else: what `AppendRows` cannot beat.

    python -m benchmarks.append_echo serve READY_FILE
    python -m benchmarks.append_echo send ADDRESS ROWS

The frames are those of `benchmarks.append`, made before the clock starts. `send` prints one JSON line.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from benchmarks.append_rows import make_rows
from tidemill.client.frames import cut_frames
from tidemill.v1 import job_service_pb2, job_service_pb2_grpc

_FRAMES = 16
Request = job_service_pb2.AppendRowsRequest
Response = job_service_pb2.AppendRowsResponse


async def echo(requests: AsyncIterator[Request], _context: Any) -> AsyncIterator[Response]:
    """Acknowledge what is read."""
    async for request in requests:
        yield Response(ack=job_service_pb2.AppendAck(next_offset=request.offset + len(request.rows)))


async def serve(ready: Callable[[str], object]) -> None:
    """Serve until the process is ended; `ready` is told the address."""
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        cast("Any", echo),
        request_deserializer=Request.FromString,
        response_serializer=Response.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tidemill.v1.JobService", {"AppendRows": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready(f"127.0.0.1:{port}")
    await server.wait_for_termination()


def send(address: str, rows: int) -> dict[str, float]:
    """Send at least `rows` rows and read every answer."""
    frames = list(cut_frames(make_rows(_FRAMES * 1024)))
    requests = [Request(offset=item.offset, rows=item.rows) for item in frames]
    size = sum(len(item.rows) for item in frames)
    rounds = max(1, -(-rows // size))

    def messages() -> Iterator[Request]:
        for _ in range(rounds):
            yield from requests

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        started = time.perf_counter()
        answers = sum(1 for _ in stub.AppendRows(messages()))
        seconds = time.perf_counter() - started
    if answers != rounds * len(requests):
        raise SystemExit(f"{answers} answers to {rounds * len(requests)} frames")
    return {"rows_per_s": rounds * size / seconds}


def main() -> None:
    command, *arguments = sys.argv[1:]
    if command == "serve":
        asyncio.run(serve(Path(arguments[0]).write_text))
    else:
        print(json.dumps(send(arguments[0], int(arguments[1]))), flush=True)


if __name__ == "__main__":
    main()

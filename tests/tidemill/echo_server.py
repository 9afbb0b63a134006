"""A server on the shared shell whose handlers succeed, fail and wait as their request's name says.

With `ECHO_TRACES=no` it begins no traces of its own.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc.aio

from tidemill import telemetry
from tidemill.channel import call, open_channel
from tidemill.errors import Reason, TidemillError
from tidemill.ops import Readiness
from tidemill.serving import ServerSpec, serve
from tidemill.v1 import (
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)


# The generated bases are abstract; this server answers some of their calls.
class Jobs(cast("Any", job_service_pb2_grpc).JobServiceServicer):
    def __init__(self) -> None:
        self.draining = asyncio.Event()

    async def GetJob(self, request: Any, context: Any) -> job_pb2.Job:  # noqa: N802
        if request.name == "typed":
            raise TidemillError(Reason.JOB_NOT_FOUND, "no such job")
        raise KeyError("secret")

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        yield job_service_pb2.WatchJobResponse(revision=1)
        if request.name == "typed":
            raise TidemillError(Reason.JOB_TERMINAL, "over")
        await self.draining.wait()
        yield job_service_pb2.WatchJobResponse(revision=2)

    async def ListJobs(self, request: Any, context: Any) -> Any:  # noqa: N802
        return job_service_pb2.ListJobsResponse(next_page_token=str(context.time_remaining()))

    async def drain(self) -> None:
        self.draining.set()


class Models(cast("Any", model_service_pb2_grpc).ModelServiceServicer):
    async def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        address = await asyncio.to_thread(_own_address)
        async with open_channel(address) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            answer = await call(stub.ListJobs, job_service_pb2.ListJobsRequest())
        return model_service_pb2.ListModelsResponse(next_page_token=answer.next_page_token)


def _own_address() -> str:
    import json

    return str(json.loads(Path(sys.argv[1]).read_text())["address"])


async def main() -> None:
    telemetry.setup("echo", Path(sys.argv[2]))
    jobs = Jobs()

    def register(server: grpc.aio.Server) -> None:
        job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)

    await serve(
        ServerSpec(
            address="127.0.0.1:0",
            http_address="127.0.0.1:0",
            services=["tidemill.v1.JobService", "tidemill.v1.ModelService"],
            register=register,
            ready=lambda: Readiness(True, {"answers": 42}),
            drain=jobs.drain,
            ready_file=Path(sys.argv[1]),
            traces=os.environ.get("ECHO_TRACES") != "no",
        )
    )
    telemetry.shutdown()


if __name__ == "__main__":
    asyncio.run(main())

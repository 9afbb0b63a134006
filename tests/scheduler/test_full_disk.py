"""A ledger without room: new work is refused, nothing acknowledged is lost, and work goes on by itself."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.scheduler import builders
from tests.scheduler.scheduler_process import SchedulerProcess
from tests.scheduler.test_process import Caller
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2 as pb

SECONDS = 20


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[SchedulerProcess]:
    process = SchedulerProcess(tmp_path, chunk_rows=10, lease_seconds=60)
    await process.start()
    yield process
    await process.kill()


def allow(process: SchedulerProcess, bytes_: int) -> None:
    """Let no file of the process grow beyond so many bytes."""
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (bytes_, most))


async def refused(call: Any) -> TidemillError:
    with pytest.raises(TidemillError) as caught:
        await call
    return caught.value


async def until_accepted(caller: Caller, method: str, request: Any) -> Any:
    """What a client does: try again when it is told to."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return await caller.call(method, request)
        except TidemillError as error:
            if error.reason is not Reason.LEDGER_FULL or time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


async def test_a_full_disk_refuses_new_work_and_loses_nothing(process: SchedulerProcess, tmp_path: Path):
    async with Caller(process) as caller:
        job = await caller.queue(builders.spec(1), 10)
        (lease,) = await caller.lease()
        part = builders.part(lease, {0, 1, 2})
        allow(process, (tmp_path / "ledger.sqlite3-wal").stat().st_size)
        fresh = pb.CreateJobRequest(spec=builders.spec(2))
        for method, request in (("CreateJob", fresh), ("CommitPart", part), ("CreateJob", fresh)):
            error = await refused(caller.call(method, request))
            assert error.reason is Reason.LEDGER_FULL
            assert error.retry_after
            assert "free space" in error.message
        record = await caller.call("GetJob", pb.GetJobRequest(job=job))
        assert record.row_counts.leased == 10
        assert (await refused(caller.call("GetJob", pb.GetJobRequest(job=builders.job_name(2))))).reason is (
            Reason.JOB_NOT_FOUND
        )
        allow(process, resource.RLIM_INFINITY)
        await until_accepted(caller, "CommitPart", part)
        await until_accepted(caller, "CreateJob", fresh)
    await process.kill()
    await process.start()
    async with Caller(process) as caller:
        record = await caller.call("GetJob", pb.GetJobRequest(job=job))
        assert record.row_counts.succeeded == 3
        assert record.row_counts.leased == 7
        await caller.call("GetJob", pb.GetJobRequest(job=builders.job_name(2)))

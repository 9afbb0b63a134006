"""A ledger without room: new work is refused, nothing acknowledged is lost, and work goes on by itself."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scheduler import builders
from tests.scheduler.caller import Caller
from tests.scheduler.redis_server import RedisServer
from tests.scheduler.scheduler_process import SchedulerProcess
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2 as pb


def allow(process: SchedulerProcess, bytes_: int) -> None:
    """Let no file of the process grow beyond so many bytes."""
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (bytes_, most))


async def refused(call: Any) -> TidemillError:
    with pytest.raises(TidemillError) as caught:
        await call
    return caught.value


async def run_out_of_room(process: SchedulerProcess, fill: Callable[[], None], empty: Callable[[], None]) -> None:
    """Work, let `fill` take all room, and `empty` give it back; then die, and look what is there."""
    fresh = pb.CreateJobRequest(spec=builders.spec(2))
    async with Caller(process.address) as caller:
        await caller.call("CreateJob", pb.CreateJobRequest(spec=builders.spec(1)))
        job = await caller.queue(builders.spec(1), 10)
        (lease,) = await caller.lease()
        part = builders.part(lease, {0, 1, 2})
        fill()
        for method, request in (("CreateJob", fresh), ("CommitPart", part), ("CreateJob", fresh)):
            error = await refused(caller.call(method, request))
            assert error.reason is Reason.LEDGER_FULL
            assert error.retry_after
            assert "free " in error.message
        record = await caller.call("GetJob", pb.GetJobRequest(job=job))
        assert record.row_counts.leased == 10
        unknown = await refused(caller.call("GetJob", pb.GetJobRequest(job=builders.job_name(2))))
        assert unknown.reason is Reason.JOB_NOT_FOUND
        empty()
        await caller.until_there_is_room("CommitPart", part)
        await caller.until_there_is_room("CreateJob", fresh)
    await process.kill()
    await process.start()
    async with Caller(process.address) as caller:
        record = await caller.call("GetJob", pb.GetJobRequest(job=job))
        assert record.row_counts.succeeded == 3
        assert record.row_counts.leased == 7
        await caller.call("GetJob", pb.GetJobRequest(job=builders.job_name(2)))
    await process.kill()


async def test_a_full_disk_refuses_new_work_and_loses_nothing(tmp_path: Path):
    process = SchedulerProcess(tmp_path, chunk_rows=10, lease_seconds=60)
    await process.start()
    log = tmp_path / "ledger.sqlite3-wal"
    await run_out_of_room(
        process, lambda: allow(process, log.stat().st_size), lambda: allow(process, resource.RLIM_INFINITY)
    )


async def test_a_full_redis_refuses_new_work_and_loses_nothing(tmp_path: Path):
    server = RedisServer(tmp_path / "redis")
    server.start()
    process = SchedulerProcess(tmp_path, ledger=server.url(), chunk_rows=10, lease_seconds=60)
    await process.start()
    with server.client() as client:
        await run_out_of_room(
            process, lambda: client.config_set("maxmemory", 1), lambda: client.config_set("maxmemory", 0)
        )
    server.kill()

"""A real scheduler that archives, snapshots and compacts all the time, killed again and again; and damage behind it."""

import sqlite3
from pathlib import Path

from tests.scheduler import builders
from tests.scheduler.caller import Caller
from tests.scheduler.scheduler_process import SchedulerProcess
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

KILLS = 3
JOBS_A_LIFE = 4


async def live(process: SchedulerProcess, first: int) -> list[records_pb2.JobRecord]:
    """Work jobs off; their last records."""
    records: list[records_pb2.JobRecord] = []
    async with Caller(process.address) as caller:
        for number in range(first, first + JOBS_A_LIFE):
            job = await caller.queue(builders.spec(number, request_id=f"r{number}"), 10)
            (lease,) = await caller.lease()
            await caller.answer(lease)
            records.append(await caller.close(job))
    return records


async def check(process: SchedulerProcess, records: list[records_pb2.JobRecord]) -> None:
    """Everything that was acknowledged is there, whatever part of the ledger it is in."""
    names = [record.spec.name for record in records]
    async with Caller(process.address) as caller:
        for number, record in enumerate(records, 1):
            assert await caller.call("GetJob", pb.GetJobRequest(job=record.spec.name)) == record
            again = pb.CreateJobRequest(spec=builders.spec(100 + number, request_id=f"r{number}"))
            assert await caller.call("CreateJob", again) == record
        listed = await caller.call("ListJobs", pb.ListJobsRequest(tenant="acme", page_size=100))
        assert [job.spec.name for job in listed.jobs] == names[::-1]
        feed = await caller.call("ListCompletions", pb.ListCompletionsRequest(tenant="acme", limit=100))
        assert [entry.job.spec.name for entry in feed.completions] == [name for name in names for _ in range(2)]


def kept(path: Path) -> tuple[int, int, list[int]]:
    """First event, archived jobs, and snapshots of a ledger that nobody has open."""
    with sqlite3.connect(path) as db:
        (first,) = db.execute("SELECT min(sequence) FROM events").fetchone()
        (jobs,) = db.execute("SELECT count(*) FROM archive").fetchone()
        snapshots = [row[0] for row in db.execute("SELECT sequence FROM snapshots ORDER BY sequence")]
    db.close()
    return first, jobs, snapshots


async def test_kills_lose_nothing_while_the_ledger_is_kept_small(tmp_path: Path):
    process = SchedulerProcess(tmp_path, chunk_rows=10, archive_jobs=1, snapshot_events=10)
    path = tmp_path / "ledger.sqlite3"
    records: list[records_pb2.JobRecord] = []
    for life in range(KILLS):
        await process.start()
        await check(process, records)
        records += await live(process, 1 + life * JOBS_A_LIFE)
        await process.kill()
    first, jobs, snapshots = kept(path)
    assert len(snapshots) == 2
    assert first > 1
    assert jobs >= (KILLS - 1) * JOBS_A_LIFE
    await process.start()
    await check(process, records)
    assert await process.stop() == 0

    # A damaged snapshot is set aside, and what it stood for is still there.
    _, _, snapshots = kept(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE snapshots SET blob = substr(blob, 1, length(blob) - 1) WHERE sequence = ?", snapshots[-1:])
    db.close()
    await process.start()
    await check(process, records)
    await process.kill()
    with sqlite3.connect(path) as db:
        (why,) = db.execute("SELECT why FROM damaged").fetchone()
    db.close()
    assert why == "snapshot: its checksum does not match"

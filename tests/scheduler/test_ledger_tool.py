"""`python -m services.scheduler.ledger_tool`: backups, restores and what `inspect` says."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from services.scheduler import snapshot
from services.scheduler.ledger import RedisLedger, SqliteLedger
from services.scheduler.ledger.keeping import ArchiveRow
from services.scheduler.ledger.redis_address import parse
from services.scheduler.ledger_tool.__main__ import main
from services.scheduler.ledger_tool.backup import back_up
from services.scheduler.ledger_tool.folding import fold
from services.scheduler.ledger_tool.inspection import events_of, look
from services.scheduler.ledger_tool.redis_target import RedisTarget
from services.scheduler.ledger_tool.restore import FENCE_JUMP, restore, restore_redis
from services.scheduler.ledger_tool.sqlite_source import SqliteSource
from tests.scheduler import builders, recount
from tests.scheduler.caller import Caller
from tests.scheduler.desk import Desk
from tests.scheduler.redis_server import RedisServer
from tests.scheduler.refusals import refusal
from tests.scheduler.scheduler_process import SchedulerProcess
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

SUCCEEDED = job_pb2.JOB_STATE_SUCCEEDED


def worked() -> Desk:
    """One job done, one running, one receiving."""
    desk = Desk()
    desk.queue(builders.spec(1, deadline=500_000), [5])
    (lease,) = desk.lease()
    desk.answer(lease)
    (closing,) = desk.lease()
    desk.finish(closing)
    desk.queue(builders.spec(2), [25])
    desk.lease()
    desk.fill(builders.spec(3), [4])
    return desk


def write(path: Path, desk: Desk, snapshot_at: int | None = None) -> SqliteLedger:
    """The desk's history as a ledger; with a snapshot, only what is behind it is kept as events."""
    ledger = SqliteLedger(path)
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, desk.history)
    if snapshot_at is not None:
        partial = Desk()
        partial.record(desk.history[:snapshot_at])
        ledger.save_snapshot(epoch, snapshot_at, snapshot.write(partial.state))
        while ledger.compact(epoch, snapshot_at):
            pass
    return ledger


def change(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()


def state_in(path: Path) -> dict[str, Any]:
    source = SqliteSource(path)
    state = fold(source, source.facts()).state
    source.close()
    return recount.restorable(state)


def backed_up(ledger: Path, target: Path) -> dict[str, Any]:
    source = SqliteSource(ledger)
    try:
        return back_up(source, target)
    finally:
        source.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "monday.sqlite3"


@pytest.mark.parametrize("snapshot_at", [None, 9])
def test_a_backup_of_a_ledger_in_use_is_whole(path: Path, target: Path, snapshot_at: int | None):
    desk = worked()
    ledger = write(path, desk, snapshot_at)
    done = backed_up(path, target)
    assert done["last_sequence"] == desk.state.sequence
    assert done["open_jobs"] == 2
    assert state_in(target) == recount.restorable(desk.state)
    assert [file.name for file in target.parent.iterdir()] == [target.name]
    desk.queue(builders.spec(4), [5])
    ledger.append(1, done["last_sequence"], desk.history[desk.state.sequence - 4 :])
    ledger.close()


def test_a_backup_replaces_nothing(path: Path, target: Path):
    write(path, worked()).close()
    backed_up(path, target)
    before = target.read_bytes()
    with pytest.raises(TidemillError, match="exists already"):
        backed_up(path, target)
    assert target.read_bytes() == before


def test_a_damaged_ledger_gives_no_backup(path: Path, target: Path):
    write(path, worked()).close()
    change(path, "UPDATE events SET record = zeroblob(9) WHERE sequence = 4")
    with pytest.raises(TidemillError, match="record 4 is damaged"):
        backed_up(path, target)
    assert list(target.parent.iterdir()) == []


def test_a_restored_ledger_gives_nothing_out_twice(path: Path, target: Path):
    desk = worked()
    ledger = write(path, desk)
    old = backed_up(path, target)
    (lost,) = desk.lease()
    ledger.append(1, old["last_sequence"], desk.history[-1:])
    ledger.close()
    done = restore(target, path, force=True)
    ledger = SqliteLedger(path)
    opened = ledger.open("me")
    assert opened.ledger_uid == done["ledger_uid"] != old["ledger_uid"]
    assert opened.epoch > 1_000_000
    assert opened.last_sequence == done["last_sequence"] == old["last_sequence"] + 1
    restored = Desk()
    restored.record(ledger.read(0, 1000))
    ledger.close()
    recount.check(restored.state)
    assert restored.state.fence_base > lost.fence + FENCE_JUMP // 2
    (again,) = restored.lease()
    assert again.fence > restored.state.fence_base
    assert refusal(restored.commit, builders.part(lost, {0})).reason is Reason.STALE_FENCE
    assert restored.open_writer(builders.job_name(3)) > restored.state.fence_base


def test_a_second_restore_goes_above_the_first(path: Path, target: Path):
    write(path, worked()).close()
    backed_up(path, target)
    first = restore(target, path, force=True)
    second = restore(target, path, force=True)
    assert second["fence_base"] > first["fence_base"]
    assert second["epoch"] > first["epoch"]
    assert second["ledger_uid"] != first["ledger_uid"]


def test_what_a_restore_replaces_is_put_aside(path: Path, target: Path):
    write(path, worked()).close()
    backed_up(path, target)
    desk = worked()
    desk.queue(builders.spec(7), [3])
    path.unlink()
    write(path, desk).close()
    with pytest.raises(TidemillError, match="--force"):
        restore(target, path, force=False)
    assert state_in(path) == recount.restorable(desk.state)
    aside = Path(str(restore(target, path, force=True)["replaced"]))
    assert state_in(aside) == recount.restorable(desk.state)
    assert builders.job_name(7) not in state_in(path)["jobs"]


def test_a_ledger_in_use_is_not_replaced(path: Path, target: Path):
    ledger = write(path, worked())
    backed_up(path, target)
    with pytest.raises(TidemillError, match="in use by me"):
        restore(target, path, force=True)
    ledger.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(b"no database" * 99), "SQLite cannot read"),
        (lambda file: file.unlink(), "is not there"),
        (lambda file: change(file, "DELETE FROM events WHERE sequence = 5"), "record 5 is missing"),
        (lambda file: change(file, "DROP TABLE events"), "no ledger"),
    ],
)
def test_what_is_no_whole_backup_is_refused(path: Path, target: Path, spoil: Any, words: str):
    write(path, worked()).close()
    backed_up(path, target)
    spoil(target)
    with pytest.raises(TidemillError, match=words):
        restore(target, path, force=True)
    assert state_in(path)["sequence"] == worked().state.sequence
    assert not list(path.parent.glob("*partial*"))


@pytest.mark.parametrize("snapshot_at", [None, 9])
def test_inspect_counts_what_is_there(path: Path, snapshot_at: int | None):
    desk = worked()
    write(path, desk, snapshot_at).close()
    found = look(SqliteSource(path))
    assert found["jobs"] == {"RECEIVING": 1, "RUNNING": 1, "SUCCEEDED": 1}
    assert found["last_sequence"] == desk.state.sequence
    assert found["first_sequence"] == (snapshot_at or 0) + 1
    assert sum(found["events"].values()) == desk.state.sequence - (snapshot_at or 0)
    assert found["damaged"] == []
    assert found["problem"] == ""


def test_inspect_names_every_damage(path: Path):
    write(path, worked()).close()
    change(path, "UPDATE events SET record = zeroblob(9) WHERE sequence IN (3, 8)")
    change(path, "DELETE FROM events WHERE sequence IN (5, 6)")
    found = look(SqliteSource(path))
    assert [text.split(":")[0] for text in found["damaged"]] == ["record 3", "records 5 to 6 are missing", "record 8"]
    assert "record 3 is damaged" in found["problem"]


def test_inspect_goes_round_a_damaged_snapshot(path: Path):
    desk = worked()
    ledger = write(path, desk)
    ledger.save_snapshot(1, 5, b"not one")
    ledger.close()
    found = look(SqliteSource(path))
    assert found["problem"] == ""
    assert found["damaged"] == ["snapshot 5: its checksum does not match"]
    assert sum(found["jobs"].values()) == 3


def test_inspect_tells_the_events_of_a_job(path: Path):
    write(path, worked()).close()
    events = events_of(SqliteSource(path), builders.job_name(2))
    assert list(events[0]["job_created"]) == ["spec"]
    assert "job_sealed" in events[-2]
    assert "chunk_leased" in events[-1]
    assert refusal(events_of, SqliteSource(path), builders.job_name(99)).reason is Reason.JOB_NOT_FOUND


def test_the_command_line(path: Path, target: Path, capsys: pytest.CaptureFixture[str]):
    write(path, worked()).close()
    option = f"--ledger=sqlite:///{path}"
    assert main(["backup", str(target), option, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["open_jobs"] == 2
    assert main(["restore", str(target), option]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["inspect", option]) == 0
    assert "SUCCEEDED 1" in capsys.readouterr().out
    assert main(["inspect", option, "--job", builders.job_name(2)]) == 0
    assert "job_created" in json.loads(capsys.readouterr().out.splitlines()[0])
    change(path, "UPDATE events SET record = zeroblob(9) WHERE sequence = 4")
    assert main(["inspect", option, "--json"]) == 1


def test_tidemill_ledger_runs_it(path: Path):
    write(path, worked()).close()
    command = [sys.executable, "-m", "tidemill.cli.main", "ledger", "inspect", "--json", f"--ledger=sqlite:///{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["jobs"] == {"RECEIVING": 1, "RUNNING": 1, "SUCCEEDED": 1}


def in_redis(server: RedisServer, desk: Desk, snapshot_at: int | None = None) -> RedisLedger:
    """The desk's history as a Redis ledger that nobody leads, with a job in its archive."""
    ledger = RedisLedger(parse(server.url(uuid.uuid4().hex)))
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, desk.history)
    ledger.archive_jobs(epoch, [ArchiveRow(builders.job_name(50), "acme", SUCCEEDED, "once", b"blob")])
    if snapshot_at is not None:
        partial = Desk()
        partial.record(desk.history[:snapshot_at])
        ledger.save_snapshot(epoch, snapshot_at, snapshot.write(partial.state))
        ledger.compact(epoch, snapshot_at)
    ledger.release(epoch)
    return ledger


@pytest.mark.parametrize("snapshot_at", [None, 9])
def test_a_redis_ledger_goes_through_a_file_and_back(redis_server: RedisServer, target: Path, snapshot_at: int | None):
    desk = worked()
    ledger = in_redis(redis_server, desk, snapshot_at)
    option = f"--ledger=redis://127.0.0.1:{redis_server.port}?name={ledger.address.name}"
    before = ledger.list_completions("acme", 0, 100)
    assert main(["backup", str(target), option]) == 0
    assert main(["inspect", option]) == 0
    assert state_in(target) == recount.restorable(desk.state)
    (lost,) = desk.lease()
    ledger.append(1, desk.state.sequence - 1, desk.history[-1:])
    assert main(["restore", str(target), option]) == 2
    assert main(["restore", str(target), option, "--force"]) == 0
    opened = ledger.open("heir")
    assert opened.last_sequence == desk.state.sequence
    assert opened.epoch > 1_000_000
    assert ledger.list_completions("acme", 0, 100) == before
    assert ledger.archived(builders.job_name(50)) == b"blob"
    assert ledger.archived_request("acme", "once") == builders.job_name(50)
    (restored,) = ledger.read(opened.last_sequence - 1, 10)
    assert restored.ledger_restored.fence_base > lost.fence
    late = refusal(ledger.append, 1, desk.state.sequence - 1, desk.history[-1:])
    assert late.reason is Reason.LEDGER_FENCED
    ledger.close()


def test_a_redis_ledger_whose_term_is_renewed_is_not_replaced(redis_server: RedisServer, target: Path, path: Path):
    write(path, worked()).close()
    backed_up(path, target)
    ledger = in_redis(redis_server, worked())
    epoch = ledger.open("me").epoch
    done = threading.Event()

    def renew() -> None:
        while not done.wait(0.05):
            ledger.renew(epoch)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(TidemillError, match="in use"):
            restore_redis(target, ledger.address, force=True, vouched=False, term_seconds=20)
    finally:
        done.set()
        renewing.join()
    assert ledger.read(0, 1)
    ledger.close()


def test_a_restore_into_redis_that_breaks_off_leaves_what_nobody_opens(redis_server: RedisServer, path: Path):
    write(path, worked()).close()
    ledger = RedisLedger(parse(redis_server.url(uuid.uuid4().hex)))
    half = RedisTarget(ledger.address, vouched=False)
    source = SqliteSource(path)
    source.scan_archive = broken
    with pytest.raises(ConnectionError):
        half.install(source)
    assert "being restored" in refusal(ledger.open, "me").message
    half.close()
    source.close()
    ledger.close()


def broken(after: str, limit: int) -> list[ArchiveRow]:
    """Where the tool dies."""
    raise ConnectionError


async def test_a_restore_under_real_schedulers(tmp_path: Path):
    """What a worker holds from the lost time is refused, what it held before goes on."""
    process = SchedulerProcess(tmp_path, chunk_rows=10, lease_seconds=60)
    await process.start()
    option = f"--ledger=sqlite:///{tmp_path}/ledger.sqlite3"
    copy = str(tmp_path / "copy.sqlite3")
    async with Caller(process.address) as caller:
        job = await caller.queue(builders.spec(1), 30)
        (kept,) = await caller.lease()
        await caller.call("CommitPart", builders.part(kept, {0}))
        assert await asyncio.to_thread(main, ["backup", copy, option]) == 0
        (lost,) = await caller.lease()
        await caller.call("CreateJob", pb.CreateJobRequest(spec=builders.spec(2)))
        assert await asyncio.to_thread(main, ["restore", copy, option, "--force"]) == 3
    await process.kill()
    assert await asyncio.to_thread(main, ["restore", copy, option, "--force"]) == 0
    await process.start()
    async with Caller(process.address) as caller:
        (fresh,) = await caller.lease()
        assert fresh.fence > FENCE_JUMP > lost.fence
        with pytest.raises(TidemillError, match="is not live"):
            await caller.call("CommitPart", builders.part(lost, {0}))
        await caller.call("CommitPart", builders.part(kept, {1}, number=1))
        record = await caller.call("GetJob", pb.GetJobRequest(job=job))
        assert record.row_counts.succeeded == 2
        with pytest.raises(TidemillError, match="does not exist"):
            await caller.call("GetJob", pb.GetJobRequest(job=builders.job_name(2)))
    await process.kill()

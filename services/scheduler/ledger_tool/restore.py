"""`restore`: put a backup in place of a ledger, so that nothing given out after the backup is ever given out again.

The time between the backup and its use is lost: fences, writer epochs and leader epochs of that time are unknown here,
but workers, gateways and a frozen leader may still hold them. So fences go on far above them, the leader's epoch jumps,
and the ledger gets a new identity, by which readers of the completion feed notice that their cursors mean nothing here.
"""

import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.scheduler.core.times import to_timestamp
from services.scheduler.ledger.lockfile import LockFile
from services.scheduler.ledger.redis_address import RedisAddress
from services.scheduler.ledger.sqlite import SqliteLedger
from services.scheduler.ledger_tool.backup import appearing, copy_file
from services.scheduler.ledger_tool.folding import fold
from services.scheduler.ledger_tool.redis_source import RedisSource
from services.scheduler.ledger_tool.redis_target import RedisTarget
from services.scheduler.ledger_tool.source import Facts, Source
from services.scheduler.ledger_tool.sqlite_source import SqliteSource
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

FENCE_JUMP = 1 << 40
"""More events than any ledger gets between a backup and its use; int64 has room for eight million restores."""

EPOCH_JUMP = 1 << 20
"""More leaders than there are in that time."""


@dataclass(frozen=True, slots=True)
class Known:
    """The highest fence and leader epoch that are known to have been given out."""

    fence: int = 0
    epoch: int = 0


def restore(backup: Path, target: Path, *, force: bool) -> dict[str, Any]:
    """Make `backup` the SQLite ledger `target`; an earlier file there is renamed, never removed.

    Returns what was done, for people.

    Raises:
        TidemillError: INVALID_FILE when the backup is none, or `target` exists and `force` is not given; LEDGER_LOCKED
            while a scheduler uses `target`; LEDGER_CORRUPT when the backup is not whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = LockFile(target.with_name(target.name + ".lock"))
    lock.acquire("tidemill ledger restore")
    try:
        if target.exists() and not force:
            raise TidemillError(
                Reason.INVALID_FILE, f"{target} exists already: give --force to put it aside, or restore elsewhere"
            )
        known = _known(lambda: SqliteSource(target))
        with appearing(target) as partial:
            done = _prepare(backup, partial, known)
            aside = _put_aside(target)
        return done | {"path": str(target), "replaced": aside}
    finally:
        lock.release()


def restore_redis(
    backup: Path, address: RedisAddress, *, force: bool, vouched: bool, term_seconds: float
) -> dict[str, Any]:
    """Make `backup` the Redis ledger at `address`; keys that are there are renamed, never removed.

    `term_seconds` is that of the schedulers: a ledger whose term stands still for so long is not in use.

    Raises:
        TidemillError: as `restore`, and LEDGER_UNSAFE or UNAVAILABLE.
    """
    target = RedisTarget(address, vouched=vouched)
    try:
        target.check_unused(term_seconds)
        if target.keys() and not force:
            raise TidemillError(
                Reason.INVALID_FILE, f"there is a ledger at {address}: give --force to put it aside, or name another"
            )
        known = _known(lambda: RedisSource(address))
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.sqlite3"
            done = _prepare(backup, prepared, known)
            source = SqliteSource(prepared)
            aside = target.put_aside()
            target.install(source)
            source.close()
        return done | {"path": str(address), "replaced": aside}
    finally:
        target.close()


def _known(open_source: Callable[[], Source]) -> Known:
    """What the ledger to be replaced knows, if it can be read."""
    try:
        source = open_source()
    except TidemillError:
        return Known()
    try:
        facts = source.facts()
        return Known(_highest_fence(source, facts), facts.epoch)
    except TidemillError:
        return Known()
    finally:
        source.close()


def _highest_fence(source: Source, facts: Facts) -> int:
    try:
        return fold(source, facts).state.fence_base + facts.last_sequence
    except TidemillError:
        # It is being replaced because it is damaged; the jump is meant to be enough without it.
        return facts.last_sequence


def _prepare(backup: Path, partial: Path, known: Known) -> dict[str, Any]:
    """Copy the backup to `partial` and let it begin a new life there."""
    source = SqliteSource(backup)
    try:
        facts = source.facts()
        state = fold(source, facts).state
        copy_file(source.connection, partial)
    finally:
        source.close()
    fence_base = max(state.fence_base + facts.last_sequence, known.fence) + FENCE_JUMP
    epoch = max(facts.epoch, known.epoch) + EPOCH_JUMP
    ledger_uid = str(uuid.uuid4())
    _rename(partial, ledger_uid, epoch)
    _append_restored(partial, fence_base, state.time_ns)
    return {
        "ledger_uid": ledger_uid,
        "former_ledger_uid": facts.ledger_uid,
        "epoch": epoch + 1,
        "last_sequence": facts.last_sequence + 1,
        "fence_base": fence_base,
        "open_jobs": len(state.jobs) - len(state.ended),
    }


def _rename(path: Path, ledger_uid: str, epoch: int) -> None:
    db = sqlite3.connect(path)
    with db:
        db.executemany("UPDATE meta SET value = ? WHERE key = ?", [(ledger_uid, "ledger_uid"), (str(epoch), "epoch")])
    db.close()


def _append_restored(path: Path, fence_base: int, time_ns: int) -> None:
    """Write the event through the ledger itself, as its next leader would."""
    ledger = SqliteLedger(path)
    try:
        _append(ledger, fence_base, time_ns)
        ledger.pragma("journal_mode=DELETE")
    finally:
        ledger.close()
        path.with_name(path.name + ".lock").unlink(missing_ok=True)


def _append(ledger: SqliteLedger, fence_base: int, time_ns: int) -> None:
    opened = ledger.open("tidemill ledger restore")
    event = ledger_pb2.LedgerEvent(
        sequence=opened.last_sequence + 1,
        epoch=opened.epoch,
        ledger_restored=ledger_pb2.LedgerRestored(fence_base=fence_base),
    )
    event.time.CopyFrom(to_timestamp(max(time_ns, time.time_ns())))
    ledger.append(opened.epoch, opened.last_sequence, [event])


def _put_aside(target: Path) -> str:
    """Rename the file and its log; returns the new name, or nothing."""
    if not target.exists():
        return ""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = target.with_name(f"{target.name}.replaced-{stamp}")
    for suffix in ("-wal", "-shm", ""):
        file = target.with_name(target.name + suffix)
        if file.exists():
            file.rename(aside.with_name(aside.name + suffix))
    return str(aside)

"""`backup`: a copy of a ledger in one file, taken while its scheduler works.

A backup is itself a SQLite ledger, whatever store it was taken from: it can be inspected, and restored into any store.
"""

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.scheduler.ledger_tool.folding import fold
from services.scheduler.ledger_tool.portable import write_portable
from services.scheduler.ledger_tool.source import Source
from services.scheduler.ledger_tool.sqlite_source import SqliteSource
from tidemill.errors import Reason, TidemillError


def back_up(source: Source, target: Path) -> dict[str, Any]:
    """Copy a ledger to the new file `target`, and read the copy whole.

    Returns what was copied, for people.

    Raises:
        TidemillError: INVALID_FILE when `target` exists or cannot be written; LEDGER_CORRUPT when the ledger, and so
            its copy, is not whole.
    """
    if target.exists():
        raise TidemillError(Reason.INVALID_FILE, f"{target} exists already: a backup never replaces a file")
    with appearing(target) as partial:
        if isinstance(source, SqliteSource):
            copy_file(source.connection, partial)
        else:
            write_portable(source, source.facts(), partial)
        copy = SqliteSource(partial)
        try:
            facts = copy.facts()
            folded = fold(copy, facts)
        finally:
            copy.close()
    return {
        "path": str(target),
        "ledger_uid": facts.ledger_uid,
        "epoch": facts.epoch,
        "last_sequence": facts.last_sequence,
        "open_jobs": len(folded.state.jobs) - len(folded.state.ended),
        "bytes": target.stat().st_size,
    }


@contextmanager
def appearing(path: Path) -> Generator[Path]:
    """A file to write that is renamed to `path`, durably, when the block ends well, and removed when it does not."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except (OSError, sqlite3.Error) as exc:
        raise TidemillError(Reason.INVALID_FILE, f"cannot write {path}: {exc}") from exc
    finally:
        partial.unlink(missing_ok=True)


def copy_file(connection: sqlite3.Connection, target: Path) -> None:
    """Copy a database of one moment into one file without a log beside it."""
    copy = sqlite3.connect(target, isolation_level=None)
    try:
        # All pages in one step: a copy in several begins anew whenever the scheduler appends in between. Readers of a
        # write-ahead log keep no writer waiting.
        connection.backup(copy, pages=-1)
        copy.execute("PRAGMA journal_mode=DELETE")
    finally:
        copy.close()
    target.chmod(0o600)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

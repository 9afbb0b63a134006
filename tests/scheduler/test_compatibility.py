"""Ledgers of released versions are loaded by every later one, as they were understood then."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from services.scheduler import archived
from services.scheduler.archived import ArchivedJob
from services.scheduler.core.state import State
from services.scheduler.ledger_tool.folding import fold
from services.scheduler.ledger_tool.inspection import look
from services.scheduler.ledger_tool.sqlite_source import SqliteSource
from tests.scheduler import fixture_ledger, recount
from tidemill.internal.v1 import ledger_pb2

LEDGERS = sorted(fixture_ledger.FOLDER.glob("*.sqlite3"))


@pytest.fixture(params=LEDGERS, ids=lambda path: path.stem)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the ledger of one version, and beside it what that version made of it."""
    path: Path = request.param
    for file in (path, path.with_suffix(".json")):
        shutil.copy(file, tmp_path / file.name)
    return tmp_path / path.name


def check(ledger: Path) -> None:
    source = SqliteSource(ledger)
    folded = fold(source, source.facts())
    (row,) = source.scan_archive("", 10)
    source.close()
    recount.check(folded.state)
    expected = json.loads(ledger.with_suffix(".json").read_text())
    gone = archived.unpack(row.blob, row.name)
    assert archived.unpack_record(row.blob, row.name) == gone.job
    found = summary(folded.state, gone)
    for name, value in expected.items():
        # A later version may say more of a job, never something else.
        assert includes(found[name], value), name


def summary(state: State, gone: ArchivedJob) -> dict[str, Any]:
    found = fixture_ledger.summary(state) | {"archived": fixture_ledger.archived_summary(gone)}
    return json.loads(json.dumps(found))


def includes(found: object, expected: object) -> bool:
    """Whether everything in `expected` is in `found`."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return all(name in found and includes(found[name], value) for name, value in expected.items())
    return found == expected


def test_a_snapshot_and_the_events_behind_it_are_understood(ledger: Path):
    assert SqliteSource(ledger).snapshots()
    check(ledger)


def test_every_event_is_understood(ledger: Path):
    with sqlite3.connect(ledger) as db:
        db.execute("DELETE FROM snapshots")
    db.close()
    check(ledger)


def test_the_newest_has_every_kind_of_event():
    kinds = {field.name for field in ledger_pb2.LedgerEvent.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert set(look(SqliteSource(LEDGERS[-1]))["events"]) == kinds


def test_this_version_still_makes_what_it_made(tmp_path: Path):
    found = summary(*fixture_ledger.write(tmp_path / "ledger.sqlite3"))
    expected = json.loads((fixture_ledger.FOLDER / f"ledger-{fixture_ledger.VERSION}.json").read_text())
    assert includes(found, expected), "only before its release: python -m tests.scheduler.fixture_ledger"

"""Makes the ledger that every later version must load: `python -m tests.scheduler.fixture_ledger`.

It has each kind of event, a snapshot in the middle, and beside it what this version makes of it. A released one is
never made anew: a later version adds a file of its own.
"""

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from services.scheduler import archived, snapshot
from services.scheduler.archived import ArchivedJob
from services.scheduler.core import cleanup, leasing, steering, views
from services.scheduler.core.apply import apply
from services.scheduler.core.state import State
from services.scheduler.ledger import SqliteLedger
from tests.scheduler import builders
from tests.scheduler.desk import DIED, FAILED, Desk
from tidemill.internal.v1 import ledger_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

FOLDER = Path(__file__).parent / "fixtures"
VERSION = "0.1"
LEDGER_UID = "00000000-0000-4000-8000-000000000001"

DAY = 86_400
LATER = 1_000_000
SNAPSHOT_AT = 60


def history() -> tuple[Desk, ArchivedJob]:
    """A few days of a small service, and the job of it that was archived."""
    desk = Desk()
    _succeed(desk, 1)
    _steer(desk, 2)
    _stop_and_forget(desk, 3)
    _poison(desk, 4)
    _succeed(desk, 5)
    _event(desk, ledger_restored=ledger_pb2.LedgerRestored(fence_base=1 << 40))
    gone = archived.take(desk.state, builders.job_name(1))
    _event(desk, job_archived=ledger_pb2.JobArchived(job=builders.job_name(1)))
    _leave_open(desk)
    desk.change_model(pb.ChangeModelRequest(model="tiny", drained=True, pinned=True))
    return desk, gone


def _event(desk: Desk, **payload: Any) -> None:
    desk.record([ledger_pb2.LedgerEvent(**payload)])


def _succeed(desk: Desk, number: int) -> None:
    desk.queue(builders.spec(number, deadline=LATER, request_id=f"request-{number}"), [5])
    _answer_all(desk)


def _answer_all(desk: Desk) -> None:
    """Do what there is to do until nothing is left."""
    while leases := desk.lease():
        (lease,) = leases
        if lease.kind == pb.LEASE_KIND_CHUNK:
            desk.answer(lease)
        elif lease.kind == pb.LEASE_KIND_FINALISE:
            desk.give_up(lease)
            desk.finish(lease)
        else:
            desk.record(cleanup.finish_cleanup(desk.state, lease.spec.name, lease.fence, 3))


def _steer(desk: Desk, number: int) -> None:
    name = desk.queue(builders.spec(number, deadline=LATER), [12])
    desk.record(steering.pause_job(desk.state, name))
    desk.record(steering.resume_job(desk.state, name))
    update = pb.UpdateJobRequest(job=name, service_class=job_pb2.SERVICE_CLASS_URGENT)
    update.complete_by_time.FromSeconds(LATER + DAY)
    desk.record(steering.update_job(desk.state, update, desk.now_ns))
    _event(desk, sla_changed=ledger_pb2.SlaChanged(job=name, state=job_pb2.SLA_STATE_AT_RISK))
    escalated = ledger_pb2.JobEscalated(job=name, service_class=job_pb2.SERVICE_CLASS_URGENT, parallelism=2)
    _event(desk, job_escalated=escalated)
    (lease,) = desk.lease()
    desk.release(lease, leasing.Requeue(FAILED, "the engine was full"))
    desk.back_off()
    _answer_all(desk)


def _stop_and_forget(desk: Desk, number: int) -> None:
    name = desk.queue(builders.spec(number, deadline=LATER), [25])
    (lease,) = desk.lease()
    desk.commit(builders.part(lease, {0, 1, 2}, failed=1))
    desk.cancel_now(name)
    (closing,) = desk.lease()
    desk.release(closing, leasing.Requeue(FAILED, "the store was away"))
    desk.back_off()
    _answer_all(desk)
    desk.record(cleanup.delete_job(desk.state, name, desk.now_ns))
    desk.now += DAY
    (task,) = desk.lease()
    desk.release(task, leasing.Requeue(FAILED, "the store was away"))
    desk.back_off()
    _answer_all(desk)


def _poison(desk: Desk, number: int) -> None:
    """Row 0 kills every engine until it is not run any more."""
    desk.queue(builders.spec(number, deadline=LATER), [4])
    while True:
        (lease,) = desk.lease()
        if lease.condemned_bitmap or lease.chunk_start:
            break
        desk.release(lease, leasing.Requeue(DIED, "the engine died"))
        desk.back_off()
    desk.answer(lease)
    _answer_all(desk)


def _leave_open(desk: Desk) -> None:
    """Jobs in every state that is not the last one."""
    desk.queue(builders.spec(6, deadline=LATER, tenant="beta"), [25])
    (lease,) = desk.lease()
    desk.commit(builders.part(lease, {0, 3}))
    desk.queue(builders.spec(7, deadline=LATER, tenant="beta"), [5])
    name = desk.queue(builders.spec(8, deadline=LATER), [5])
    desk.record(steering.pause_job(desk.state, name))
    desk.fill(builders.spec(9, deadline=LATER), [5, 6])
    desk.create(builders.spec(10, deadline=LATER))
    name = desk.queue(builders.spec(11, deadline=LATER), [5])
    desk.cancel(name)


def summary(state: State) -> dict[str, Any]:
    """What any version must find in it."""
    return {
        "sequence": state.sequence,
        "fence_base": state.fence_base,
        "leases": sorted(state.leases),
        "jobs": {name: MessageToDict(views.job_record(job)) for name, job in sorted(state.jobs.items())},
        "parts": {name: [part.key for part in parts] for name, parts in sorted(state.parts.items())},
        "segments": {name: [item.key for item in found] for name, found in sorted(state.segments.items())},
    }


def archived_summary(gone: ArchivedJob) -> dict[str, Any]:
    """What any version must find of the archived job."""
    keys = [part.key for part in gone.parts]
    return {"job": MessageToDict(views.job_record(gone.job)), "parts": keys, "segments": len(gone.segments)}


def write(path: Path) -> tuple[State, ArchivedJob]:
    """Make the ledger at `path`; returns its state and the archived job."""
    desk, gone = history()
    ledger = SqliteLedger(path)
    epoch = ledger.open("the maker of the fixture").epoch
    ledger.append(epoch, 0, desk.history)
    ledger.archive_jobs(epoch, [archived.row(gone)])
    middle = State()
    for event in desk.history[:SNAPSHOT_AT]:
        apply(middle, event)
    ledger.save_snapshot(epoch, SNAPSHOT_AT, snapshot.write(middle))
    ledger.pragma("journal_mode=DELETE")
    ledger.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'ledger_uid'", (LEDGER_UID,))
    db.execute("VACUUM")
    db.close()
    return desk.state, gone


def main() -> None:
    """Write both files."""
    path = FOLDER / f"ledger-{VERSION}.sqlite3"
    path.unlink(missing_ok=True)
    state, gone = write(path)
    found = summary(state) | {"archived": archived_summary(gone)}
    path.with_name(path.name + ".lock").unlink()
    path.with_suffix(".json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(path, path.stat().st_size, file=sys.stderr)


if __name__ == "__main__":
    main()

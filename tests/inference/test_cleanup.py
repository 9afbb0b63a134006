"""Cleanup: what nothing names goes, and nothing else does."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.cleanup import CleanupTask
from services.inference.held import HeldLease
from services.inference.link import LeaseVoidError
from services.inference.store_link import StoreLink
from tests.inference.fakes import FakeScheduler
from tests.stores import folder_store
from tidemill.errors import TidemillError
from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.store import MARKER
from tidemill.store.local import LocalStore

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
JOB = f"tenants/acme/jobs/{ULID}"
FOLDER = f"jobs/acme/{ULID}"
NAMED = (f"{FOLDER}/input/000000000000-1.parquet", f"{FOLDER}/output/000000000000-7-00000.parquet")
SIDECAR = f"{FOLDER}/input/000000000000-1.ids"
MANIFESTS = (f"{FOLDER}/input/manifest-0123456789abcdef.json", f"{FOLDER}/output/manifest.json")
ORPHANS = ["a.parquet", "a.ids", ".000000000000-7-00000.parquet.01", "deep/d", "000000000000-6-00000.parquet"]
OTHER_JOB = "jobs/acme/01ARZ3NDEKTSV4RRFFQ69G5FAW/input/000000000000-1.parquet"


def scheduler() -> FakeScheduler:
    found = FakeScheduler([records_pb2.SegmentRef(key=NAMED[0])])
    found.committed.append(records_pb2.PartRef(key=NAMED[1]))
    return found


def held(kind: Any, job: str = JOB) -> HeldLease:
    return HeldLease(pb.Lease(kind=pb.LEASE_KIND_CLEANUP, spec=records_pb2.JobSpec(name=job), fence=9, cleanup=kind))


async def clean(store: LocalStore, lease: HeldLease, link: FakeScheduler) -> None:
    typed: Any = link
    await CleanupTask(lease, StoreLink(store), typed).run()


def age(store: LocalStore, name: str, seconds: float) -> None:
    path = store.root / name
    changed = path.stat().st_mtime - seconds
    os.utime(path, (changed, changed))


def files(store: LocalStore) -> set[str]:
    found = {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}
    return found - {MARKER}


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.sampled_from(ORPHANS), st.integers(0, 7200)))
async def test_orphans_are_what_is_old_and_nameless(
    tmp_path_factory: pytest.TempPathFactory, ages: dict[str, int]
) -> None:
    store, link = folder_store(tmp_path_factory.mktemp("store")), scheduler()
    for name in (*NAMED, *MANIFESTS, SIDECAR, OTHER_JOB):
        store.put(name, b"data")
        age(store, name, 10_000)
    for name, seconds in ages.items():
        path = store.root / FOLDER / "output" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        age(store, f"{FOLDER}/output/{name}", seconds)
    before = files(store)
    await clean(store, held(ledger_pb2.CLEANUP_KIND_ORPHANS), link)
    gone = {f"{FOLDER}/output/{name}" for name, seconds in ages.items() if seconds > 3600}
    assert files(store) == before - gone
    (request,) = link.cleaned
    assert (request.lease.job, request.lease.fence, request.files) == (JOB, 9, len(gone))


async def test_a_purge_takes_the_jobs_folder_and_no_other(tmp_path: Path) -> None:
    store, link = folder_store(tmp_path), scheduler()
    for name in (*NAMED, *MANIFESTS, OTHER_JOB):
        store.put(name, b"data")
    await clean(store, held(ledger_pb2.CLEANUP_KIND_PURGE), link)
    await clean(store, held(ledger_pb2.CLEANUP_KIND_PURGE), link)
    assert files(store) == {OTHER_JOB}
    assert [request.files for request in link.cleaned] == [4, 0]


@pytest.mark.parametrize("job", ["", "tenants/acme/jobs/..", "tenants/../jobs/" + ULID, f"tenants/acme/jobs/{ULID}/x"])
async def test_a_name_that_is_no_job_removes_nothing(tmp_path: Path, job: str) -> None:
    store, link = folder_store(tmp_path), scheduler()
    store.put(NAMED[0], b"data")
    with pytest.raises(TidemillError, match="not of the form"):
        await clean(store, held(ledger_pb2.CLEANUP_KIND_PURGE, job), link)
    assert files(store) == {NAMED[0]}
    assert link.cleaned == []


async def test_an_unknown_kind_and_a_void_lease_remove_nothing(tmp_path: Path) -> None:
    store, link = folder_store(tmp_path), scheduler()
    store.put(f"{FOLDER}/output/x.parquet", b"data")
    age(store, f"{FOLDER}/output/x.parquet", 10_000)
    with pytest.raises(TidemillError, match="knows no cleanup 0"):
        await clean(store, held(ledger_pb2.CLEANUP_KIND_UNSPECIFIED), link)
    lease = held(ledger_pb2.CLEANUP_KIND_ORPHANS)
    lease.void.set()
    with pytest.raises(LeaseVoidError):
        await clean(store, lease, link)
    assert files(store) == {f"{FOLDER}/output/x.parquet"}

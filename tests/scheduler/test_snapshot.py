"""Snapshots: what is put back is what was there, and what cannot be read is refused."""

import json
import zlib
from dataclasses import dataclass, field, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import framing, snapshot
from services.scheduler.core import packing
from services.scheduler.core.apply import apply
from services.scheduler.core.records import Chunk, Part, Tally
from services.scheduler.core.state import State
from services.scheduler.framing import DamagedError, NewerError
from tests.scheduler import builders, recount
from tests.scheduler.desk import Desk
from tidemill.internal.v1 import ledger_pb2


def busy_desk() -> Desk:
    """A state with something in every container that a few commands can fill."""
    desk = Desk()
    for number in range(1, 5):
        desk.queue(builders.spec(number, tenant=f"t{number % 2}", request_id=f"r{number}"), [25])
    desk.fill(builders.spec(9), [5])
    (lease,) = desk.lease()
    desk.commit(builders.part(lease, {0, 1, 2}))
    desk.lease()
    return desk


def test_what_is_put_back_is_what_was_there():
    desk = busy_desk()
    restored = snapshot.load(snapshot.write(desk.state))
    assert recount.restorable(restored) == recount.restorable(desk.state)
    recount.check(restored)


def test_a_captured_state_does_not_change():
    desk = busy_desk()
    before = recount.restorable(snapshot.load(snapshot.write(desk.state)))
    writer = snapshot.Writer(snapshot.capture(desk.state))
    (lease,) = desk.lease()
    desk.commit(builders.part(lease, {4}))
    desk.queue(builders.spec(20), [10])
    while writer.step():
        pass
    assert recount.restorable(snapshot.load(writer.blob())) == before


def test_every_slice_is_short(monkeypatch: pytest.MonkeyPatch):
    desk = busy_desk()
    monkeypatch.setattr(snapshot, "SLICE_SECONDS", 0.0)
    writer = snapshot.Writer(snapshot.capture(desk.state))
    steps = 0
    while writer.step():
        steps += 1
    assert steps > len(desk.state.jobs)
    assert recount.restorable(snapshot.load(writer.blob())) == recount.restorable(desk.state)


def test_every_field_is_stored_or_derived():
    """A field of a kind that cannot be written has to be derived: say so in `snapshot.DERIVED`."""
    names = {item.name for item in fields(State)}
    assert names >= snapshot.DERIVED
    assert set(snapshot.stored()) >= names - snapshot.DERIVED
    for kind in snapshot.stored().values():
        packing.packer(kind)


@pytest.mark.parametrize("place", [0, 10, 60, 300, -1])
def test_a_changed_byte_is_noticed(place: int):
    blob = bytearray(snapshot.write(busy_desk().state))
    blob[place] ^= 1
    with pytest.raises(DamagedError):
        snapshot.load(bytes(blob))


def test_a_cut_blob_is_noticed():
    blob = snapshot.write(busy_desk().state)
    for length in (0, 5, 40, len(blob) - 1):
        with pytest.raises(DamagedError):
            snapshot.load(blob[:length])


def reframed(blob: bytes, change: Any) -> bytes:
    """The blob with another header and body."""
    header, body = framing.unframe(snapshot.MAGIC, blob)
    lines = [json.loads(line) for line in body.splitlines()]
    lines = change(header, lines) or lines
    text = "\n".join(json.dumps(line) for line in lines)
    return framing.frame(snapshot.MAGIC, header, zlib.compress(text.encode()))


def test_a_newer_version_is_refused():
    def newer(header: dict[str, Any], _lines: list[Any]) -> None:
        header["version"] = framing.VERSION + 1

    with pytest.raises(NewerError, match="version"):
        snapshot.load(reframed(snapshot.write(busy_desk().state), newer))


@pytest.mark.parametrize("owner", ["State", "Job", "Lease"])
def test_an_unknown_field_is_refused(owner: str):
    def add(header: dict[str, Any], _lines: list[Any]) -> None:
        header["schema"][owner].append("colour")

    with pytest.raises(NewerError, match=f"{owner}.colour"):
        snapshot.load(reframed(snapshot.write(busy_desk().state), add))


def test_a_missing_field_takes_its_default():
    def remove(header: dict[str, Any], lines: list[Any]) -> list[Any]:
        names = header["schema"]["Job"]
        place = names.index("parallelism")
        names.remove("parallelism")
        for name, entry in lines:
            if name == "jobs":
                del entry[1][place]
        header["schema"]["State"].remove("fence_base")
        return [line for line in lines if line[0] != "fence_base"]

    desk = busy_desk()
    restored = snapshot.load(reframed(snapshot.write(desk.state), remove))
    assert recount.restorable(restored) == recount.restorable(desk.state)


def test_fences_after_a_restore_are_above_the_base():
    desk = busy_desk()
    desk.record([ledger_pb2.LedgerEvent(ledger_restored=ledger_pb2.LedgerRestored(fence_base=1_000_000))])
    (lease,) = desk.lease()
    assert lease.fence == 1_000_000 + desk.state.sequence
    desk.commit(builders.part(lease, {0}))
    restored = snapshot.load(snapshot.write(desk.state))
    assert restored.fence_base == 1_000_000
    assert recount.restorable(desk.replayed()) == recount.restorable(desk.state) == recount.restorable(restored)


def test_an_archived_job_leaves_no_trace():
    desk = busy_desk()
    name = builders.job_name(30)
    desk.queue(builders.spec(30, request_id="gone", deadline=500_000), [5])
    (lease,) = desk.lease()
    desk.answer(lease)
    (closing,) = desk.lease()
    desk.finish(closing)
    assert name in desk.state.jobs
    before = set(desk.state.part_of)
    desk.record([ledger_pb2.LedgerEvent(job_archived=ledger_pb2.JobArchived(job=name))])
    recount.check(desk.state)
    assert name not in desk.state.jobs
    assert name not in desk.state.parts
    assert name not in desk.state.segments
    assert len(before - set(desk.state.part_of)) == 1
    assert all(job != name for job, _ in desk.state.part_of.values())
    assert not any(job == name for _, job in desk.state.ended)
    assert recount.restorable(desk.replayed()) == recount.restorable(desk.state)


sets = st.builds(lambda bits, low: 1 << bits | low, st.integers(0, 70_000), st.integers(0, 1 << 64))


@given(done=sets, key=st.text(), digest=st.binary(max_size=40))
def test_records_of_any_content_come_back(done: int, key: str, digest: bytes):
    part = Part(key, 0, 70_000, 2**40, 3, done, digest, Tally(1, 2), 5, 7)
    chunk = Chunk(5, 70_000, done)
    for kind, value in ((Part, part), (Chunk, chunk), (dict[int, list[Part]], {7: [part]})):
        pack = packing.packer(kind)
        unpack = packing.Unpacker(packing.schema_of(kind)).of(kind)
        assert pack is not None
        assert unpack is not None
        assert unpack(json.loads(json.dumps(pack(value)))) == value


class Opaque:
    """Of no kind that can be written."""


@dataclass
class Holder:
    """With such a field."""

    secret: Opaque = field(default_factory=Opaque)


def test_a_type_that_cannot_be_written_is_named():
    with pytest.raises(TypeError, match="Opaque"):
        packing.packer(Holder)


def test_applied_events_follow_a_snapshot():
    desk = busy_desk()
    restored = snapshot.load(snapshot.write(desk.state))
    after = desk.state.sequence
    (lease,) = desk.lease()
    desk.commit(builders.part(lease, {1}))
    for event in desk.history[after:]:
        apply(restored, event)
    assert recount.restorable(restored) == recount.restorable(desk.state)

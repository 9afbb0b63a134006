"""Snapshots of the state: what a replay of all events would give, in one blob.

Every field of `State` is written unless it is named here as derived; the derived ones arise anew as the records are
put back. The records are frozen, so a snapshot is taken by copying containers; turning the copy into bytes goes in
slices, between which the ledger's thread serves appends.
"""

import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import fields
from itertools import groupby
from operator import itemgetter
from typing import Any, get_origin

from services.scheduler.core import packing
from services.scheduler.core.records import LeaseKind
from services.scheduler.core.state import State
from services.scheduler.framing import NewerError, frame, unframe

MAGIC = b"TMSNAP\n\x00"

READ_LINES = 1000

SLICE_SECONDS = 0.01
"""How long one slice takes: an append waits at most for one."""

DERIVED = frozenset(
    {
        "requests",
        "names",
        "counts",
        "part_of",
        "leases_of",
        "ready",
        "in_flight",
        "demand",
        "holdings",
        "agenda",
        "accounts",
        "busy",
        "ended",
        "cleanups_leased",
    }
)
"""Fields that follow from the others, but for what `_PARTS` says."""

_PARTS: dict[str, tuple[Any, Any, Any]] = {
    "accounts": (
        tuple[dict[str, int], int],
        lambda state: (dict(state.accounts.tokens), state.accounts.floor),
        lambda state, counters: state.accounts.restore(*counters),
    ),
    "agenda": (
        dict[tuple[str, int], int],
        lambda state: state.agenda.chunks.times,
        lambda state, times: [state.agenda.chunks.set(key, time_ns) for key, time_ns in times.items()],
    ),
}
"""Of a derived field the part that does not follow: its type, how it is read and how it is put back."""


def stored() -> dict[str, Any]:
    """The stored fields and their types."""
    types = packing.hints(State)
    kinds = {item.name: types[item.name] for item in fields(State) if item.name not in DERIVED}
    return kinds | {name: kind for name, (kind, _, _) in _PARTS.items()}


def capture(state: State) -> dict[str, Any]:
    """A copy of the state's stored fields, which later events leave alone."""
    taken: dict[str, Any] = {}
    for name, kind in stored().items():
        value = _PARTS[name][1](state) if name in _PARTS else getattr(state, name)
        copy = packing.copier(kind)
        taken[name] = copy(value) if copy else value
    return taken


class Writer:
    """Turns a captured state into a snapshot, slice by slice."""

    def __init__(self, captured: dict[str, Any]) -> None:
        self.sequence: int = captured["sequence"]
        self._body: list[bytes] = []
        self._compress = zlib.compressobj(1)
        self._entries = self._pack(captured)

    def _pack(self, captured: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Fields, and of dictionaries the items, as JSON values."""
        for name, kind in stored().items():
            pack = packing.packer(kind)
            if get_origin(kind) is dict and pack:
                for key, value in captured[name].items():
                    yield name, pack({key: value})[0]
            else:
                yield name, packing.packed(kind, captured[name])

    def step(self) -> bool:
        """Do some of the work; returns whether there is more."""
        end = time.perf_counter() + SLICE_SECONDS
        lines: list[str] = []
        for entry in self._entries:
            lines.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
            if time.perf_counter() > end:
                break
        self._body.append(self._compress.compress(("\n".join(lines) + "\n").encode() if lines else b""))
        return bool(lines)

    def blob(self) -> bytes:
        """The snapshot, once nothing is left to do."""
        schema: packing.Schema = {"State": list(stored())}
        for kind in stored().values():
            schema |= packing.schema_of(kind)
        header = {"sequence": self.sequence, "schema": schema}
        return frame(MAGIC, header, b"".join([*self._body, self._compress.flush()]))


def write(state: State) -> bytes:
    """The snapshot of a state, in one go."""
    writer = Writer(capture(state))
    while writer.step():
        pass
    return writer.blob()


def load(blob: bytes) -> State:
    """The state of a snapshot.

    Raises:
        DamagedError: the blob is not what was written.
        NewerError: it was written by a version that knows more of the state than this one.
    """
    header, body = unframe(MAGIC, blob)
    known = {item.name for item in fields(State)}
    if unknown := [name for name in header["schema"]["State"] if name not in known]:
        raise NewerError(f"it has a field State.{unknown[0]} that this version does not know")
    try:
        return _rebuilt(_read(header["schema"], body))
    except packing.UnknownFieldError as exc:
        raise NewerError(f"it has a field {exc} that this version does not know") from exc


def _read(schema: packing.Schema, body: bytes) -> dict[str, Any]:
    unpacker = packing.Unpacker(schema)
    kinds = stored()
    values: dict[str, Any] = {name: {} for name, kind in kinds.items() if get_origin(kind) is dict}
    for name, entries in _entries(body):
        if name not in kinds:
            # It follows from the others by now.
            continue
        unpack = unpacker.of(kinds[name])
        if get_origin(kinds[name]) is dict and unpack:
            values[name].update(unpack(entries))
        else:
            values[name] = unpack(entries[-1]) if unpack else entries[-1]
    return values


def _entries(body: bytes) -> Iterator[tuple[str, list[Any]]]:
    """Fields and their entries, many at a time: a parser's start costs more than an entry."""
    lines = body.splitlines()
    for first in range(0, len(lines), READ_LINES):
        found = json.loads(b"[" + b",".join(lines[first : first + READ_LINES]) + b"]")
        for name, entries in groupby(found, itemgetter(0)):
            yield name, [entry for _, entry in entries]


def _rebuilt(values: dict[str, Any]) -> State:
    state = State()
    jobs, leases, cleanups = values.pop("jobs"), values.pop("leases"), values.pop("cleanups")
    parts = {name: values.pop(name) for name in _PARTS if name in values}
    for name, value in values.items():
        setattr(state, name, value)
    for job in jobs.values():
        state.put(job)
        if job.spec.request_id and not job.deleted:
            state.requests[job.tenant, job.spec.request_id] = job.name
    for name, committed in state.parts.items():
        state.part_of.update(((part.fence, part.part_number), (name, part)) for part in committed)
    for name, cleanup in cleanups.items():
        state.put_cleanup(name, cleanup)
    for lease in leases.values():
        state.add_lease(lease)
        if lease.kind is LeaseKind.CHUNK:
            state.in_flight.shift(state.jobs[lease.job], 1)
    for model in {job.model for job in jobs.values()}:
        # Latest starts rest on the workers that are busy, which only the leases tell.
        state.refresh_starts(model, len(state.ready))
    for name, value in parts.items():
        _PARTS[name][2](state, value)
    return state

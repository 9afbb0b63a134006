"""A terminal job as the archive keeps it: its record, segments, parts, and what was never answered."""

import json
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from services.scheduler.core import packing
from services.scheduler.core.records import Chunk, Job, Part, Segment
from services.scheduler.core.state import State
from services.scheduler.framing import DamagedError, NewerError, frame, opened, unframe
from services.scheduler.ledger.keeping import ArchiveRow
from tidemill.errors import Reason, TidemillError

MAGIC = b"TMJOB\n\x00\x00"

RECORD_BYTES = 4096
"""Of a blob so much is decompressed for its record, and more only where the record is longer."""


@dataclass(frozen=True, slots=True)
class ArchivedJob:
    """Everything about one job. `job` stays the first field: it can be read without what is behind it."""

    job: Job
    segments: list[Segment] = field(default_factory=list[Segment])
    parts: list[Part] = field(default_factory=list[Part])
    chunks: dict[int, Chunk] = field(default_factory=dict[int, Chunk])


def take(state: State, name: str) -> ArchivedJob:
    """A copy of what the state knows of a job."""
    return ArchivedJob(
        state.jobs[name],
        list(state.segments.get(name, ())),
        list(state.parts.get(name, ())),
        dict(state.chunks.get(name, {})),
    )


def row(archived: ArchivedJob) -> ArchiveRow:
    """What the ledger stores."""
    job = archived.job
    return ArchiveRow(job.name, job.tenant, job.state, job.spec.request_id, pack(archived))


def pack(archived: ArchivedJob) -> bytes:
    """The blob of a job."""
    values = packing.packed(ArchivedJob, archived)
    body = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
    return frame(MAGIC, {"schema": packing.schema_of(ArchivedJob)}, zlib.compress(body, 1))


def unpack(blob: bytes, name: str) -> ArchivedJob:
    """The job in a blob. Takes seconds where there are many parts: not for the event loop.

    Raises:
        TidemillError: DATA_CORRUPT naming the job, or LEDGER_UNSAFE when a newer version wrote it.
    """
    with _readable(name):
        header, body = unframe(MAGIC, blob)
        return _reader(json.dumps(header["schema"]), ArchivedJob)(json.loads(body))


def unpack_record(blob: bytes, name: str) -> Job:
    """The job's record alone, in the same short time however many parts there are; raises as `unpack`."""
    with _readable(name):
        header, body = opened(MAGIC, blob)
        return _reader(json.dumps(header["schema"]), Job)(_first(body))


def _first(body: bytes) -> Any:
    """The first item of a compressed JSON array; what is behind it is hardly looked at."""
    size = RECORD_BYTES
    while True:
        text = zlib.decompressobj().decompress(body, size)
        try:
            # A character that is cut at the end belongs to no complete item.
            return json.JSONDecoder().raw_decode(text.decode(errors="ignore"), 1)[0]
        except json.JSONDecodeError as exc:
            if len(text) < size:
                raise DamagedError("it has no record") from exc
            size *= 4


@contextmanager
def _readable(name: str) -> Generator[None]:
    try:
        yield
    except DamagedError as exc:
        raise TidemillError(
            Reason.DATA_CORRUPT,
            f"job {name} is damaged in the ledger's archive ({exc}); restore the ledger from a backup to read it",
            metadata={"job": name},
        ) from exc
    except (NewerError, packing.UnknownFieldError) as exc:
        raise TidemillError(
            Reason.LEDGER_UNSAFE,
            f"job {name} was archived by a newer version ({exc}); start that version to read it",
            metadata={"job": name},
        ) from exc


@lru_cache(maxsize=64)
def _reader(schema: str, kind: type) -> Any:
    return packing.Unpacker(json.loads(schema)).of(kind)


def state_of(archived: ArchivedJob) -> State:
    """A state that knows this job only: what is asked of one in memory can be asked of it."""
    job = archived.job
    state = State(sequence=job.revision, time_ns=job.end_ns)
    state.segments[job.name] = archived.segments
    state.parts[job.name] = archived.parts
    if archived.chunks:
        state.chunks[job.name] = archived.chunks
    state.part_of.update(((part.fence, part.part_number), (job.name, part)) for part in archived.parts)
    state.put(job)
    if job.spec.request_id:
        state.requests[job.tenant, job.spec.request_id] = job.name
    return state

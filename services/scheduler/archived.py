"""A terminal job as the archive keeps it: its record, segments, parts, and what was never answered."""

import json
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from services.scheduler.core import packing
from services.scheduler.core.records import Chunk, Job, Part, Segment
from services.scheduler.core.state import State
from services.scheduler.framing import DamagedError, NewerError, frame, unframe
from services.scheduler.ledger.keeping import ArchiveRow
from tidemill.errors import Reason, TidemillError

MAGIC = b"TMJOB\n\x00\x00"


@dataclass(frozen=True, slots=True)
class ArchivedJob:
    """Everything about one job."""

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
    """The job in a blob.

    Raises:
        TidemillError: DATA_CORRUPT naming the job, or LEDGER_UNSAFE when a newer version wrote it.
    """
    try:
        header, body = unframe(MAGIC, blob)
        return _reader(json.dumps(header["schema"]))(json.loads(body))
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
def _reader(schema: str) -> Any:
    return packing.Unpacker(json.loads(schema)).of(ArchivedJob)


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

"""Input segments in the object store: written by the appender, read to compare rows that are sent again."""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from services.gateway.custom_ids import sidecar_bytes, sidecar_key
from services.gateway.prepared import Prepared
from tidemill.internal.v1 import records_pb2
from tidemill.names import JobName
from tidemill.segments import read_segment, write_segment
from tidemill.store import ObjectStore


def write_input_segment(store: ObjectStore, job: JobName, writer_epoch: int, batch: Prepared) -> records_pb2.SegmentRef:
    """Store rows and the sidecar of their ids, fsynced. Blocking."""
    key = f"{job.prefix}/input/{batch.start:012d}-{writer_epoch}.parquet"
    store.put(sidecar_key(key), sidecar_bytes(batch.ids))
    stored = write_segment(store, key, batch.table())
    return records_pb2.SegmentRef(
        key=key,
        start=batch.start,
        count=len(batch),
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        text_bytes=sum(batch.text_bytes),
        max_output_tokens=sum(batch.max_tokens),
        shared_only_rows=sum(batch.shared_only),
    )


class StoredRows:
    """The digests of a job's durable rows."""

    def __init__(self, store: ObjectStore, segments: Iterable[records_pb2.SegmentRef]) -> None:
        self._store = store
        self.segments = list(segments)
        # Rows are sent again in order, so the segment read last is nearly always the next one needed.
        self._last: tuple[str, Sequence[bytes]] = ("", ())

    @property
    def end(self) -> int:
        """Number of durable rows."""
        return self.segments[-1].start + self.segments[-1].count if self.segments else 0

    async def differing(self, batch: Prepared) -> list[int]:
        """Positions in `batch` of rows that are not those stored under their index; all must be stored."""
        return await asyncio.to_thread(self._differing, batch)

    def _differing(self, batch: Prepared) -> list[int]:
        stored = self._digests(batch.start, len(batch))
        return [position for position, digest in enumerate(batch.digests) if digest != stored[position]]

    def _digests(self, start: int, count: int) -> list[bytes]:
        found: list[bytes] = []
        for segment in self._covering(start, start + count):
            digests = self._read(segment)
            found.extend(digests[max(0, start - segment.start) : start + count - segment.start])
        return found

    def _covering(self, start: int, end: int) -> list[records_pb2.SegmentRef]:
        first = max(0, bisect_right(self.segments, start, key=_start) - 1)
        return self.segments[first : bisect_left(self.segments, end, key=_start)]

    def _read(self, segment: records_pb2.SegmentRef) -> Sequence[bytes]:
        if self._last[0] != segment.key:
            table = read_segment(self._store, segment.key, sha256=segment.sha256, columns=["digest"])
            self._last = (segment.key, table.column("digest").to_pylist())
        return self._last[1]


def _start(segment: records_pb2.SegmentRef) -> int:
    return segment.start

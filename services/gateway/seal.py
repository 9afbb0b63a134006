"""`SealJob`: writes the input manifest, then fixes the rows."""

import asyncio
import re
from collections.abc import Sequence

from services.gateway.scheduler import Scheduler
from tidemill import telemetry
from tidemill.digests import INPUT_SPEC, data_version
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2
from tidemill.manifest import InputManifest, SegmentEntry, encode
from tidemill.merkle import Frontier
from tidemill.names import JobName, parse_job
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2

tracer = telemetry.tracer(__name__)

_MAX_DATASET = 128
_NOT_IN_DATASET = re.compile(r"[^A-Za-z0-9._-]")


class Sealer:
    """Seals jobs."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore) -> None:
        self._scheduler = scheduler
        self._store = store

    async def seal(self, job: JobName, row_count: int) -> records_pb2.JobRecord:
        """Seal a job whose appender is gone. Becomes its writer, unless the count is wrong at first sight."""
        record = await self._scheduler.get_job(str(job))
        if record.state != job_pb2.JOB_STATE_RECEIVING or record.next_offset != row_count or not row_count:
            return await self._repeat_or_refuse(record, row_count)
        try:
            opened = await self._scheduler.open_writer(str(job))
        except TidemillError as exc:
            if exc.reason is not Reason.JOB_NOT_RECEIVING:
                raise
            # Another call sealed or ended it meanwhile.
            return await self._repeat_or_refuse(await self._scheduler.get_job(str(job)), row_count)
        if opened.next_offset != row_count:
            return await self._repeat_or_refuse(opened.job, row_count)
        frontier = Frontier.restore(opened.next_offset, opened.merkle_frontier)
        return await self.seal_rows(record.spec, frontier, await self._scheduler.list_segments(str(job)))

    async def seal_rows(
        self, spec: records_pb2.JobSpec, frontier: Frontier, segments: Sequence[records_pb2.SegmentRef]
    ) -> records_pb2.JobRecord:
        """Seal the rows that a frontier and its segments describe."""
        parent = telemetry.context_from_traceparent(spec.traceparent)
        with tracer.start_as_current_span("seal", parent) as span:
            span.set_attributes({"tidemill.job": spec.name, "tidemill.rows": frontier.count})
            version = data_version(INPUT_SPEC, frontier.count, frontier.root())
            key = manifest_key(spec.name, version)
            content = _manifest(spec.name, frontier, version, segments)
            await asyncio.to_thread(self._store.put, key, content)
            request = scheduler_service_pb2.SealJobRequest(
                job=spec.name,
                row_count=frontier.count,
                input_data_version=version,
                input_manifest_key=key,
                dataset=spec.dataset or default_dataset(version, spec.model),
            )
            return await self._scheduler.seal_job(request)

    async def _repeat_or_refuse(self, record: records_pb2.JobRecord, row_count: int) -> records_pb2.JobRecord:
        # The scheduler decides: the same count again returns the job, anything else is refused there by name.
        request = scheduler_service_pb2.SealJobRequest(
            job=record.spec.name,
            row_count=row_count,
            input_data_version=record.input_data_version,
            input_manifest_key=manifest_key(record.spec.name, record.input_data_version),
            dataset=record.dataset,
        )
        return await self._scheduler.seal_job(request)


def manifest_key(job: str, version: bytes) -> str:
    """Object-store key of a job's input manifest.

    It names the content, so that a seal that lost a race cannot overwrite the manifest of the one that won.
    """
    return f"{parse_job(job).prefix}/input/manifest-{version.hex()[:16]}.json"


def default_dataset(version: bytes, model: str) -> str:
    """Output dataset of a job that names none: equal inputs to one model are versions of one dataset."""
    return f"{version.hex()[:12]}--{_NOT_IN_DATASET.sub('-', model)}"[:_MAX_DATASET]


def _manifest(job: str, frontier: Frontier, version: bytes, segments: Sequence[records_pb2.SegmentRef]) -> bytes:
    entries = [
        SegmentEntry(key=item.key, sha256=item.sha256.hex(), start=item.start, rows=item.count) for item in segments
    ]
    return encode(
        InputManifest(
            job=job,
            row_count=frontier.count,
            merkle_root=frontier.root().hex(),
            data_version=version.hex(),
            segments=tuple(entries),
        )
    )

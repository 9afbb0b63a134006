"""`ExportResults`: all results of a finished job in one file, which appears whole."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, cast

from services.gateway import metrics
from services.gateway.auth import Principal
from services.gateway.convert import is_terminal, public_job
from services.gateway.export_file import ResultFile, open_result_file
from services.gateway.places import Existing, Place, exists, place_failed
from services.gateway.results import ReadResults
from services.gateway.scheduler import Scheduler
from services.gateway.transfers import Format, Transfers, format_of
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.segments import read_batches
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2, transfer_pb2

Request = transfer_pb2.ExportResultsRequest
Response = transfer_pb2.ExportResultsResponse


class ExportResults:
    """Handles exports."""

    def __init__(self, results: ReadResults, scheduler: Scheduler, store: ObjectStore, transfers: Transfers) -> None:
        self._results = results
        self._scheduler = scheduler
        self._store = store
        self._transfers = transfers

    async def handle(self, principal: Principal, request: Request) -> Response:
        """Where the file is now; JOB_NOT_TERMINAL or FILE_EXISTS."""
        name = str(principal.job(request.name))
        kind = format_of(request.format, request.uri)
        place = self._transfers.exports.find(request.uri, principal.tenant)
        record = await self._scheduler.get_job(name)
        _check_ended(record)
        with self._transfers.slot(), metrics.OPEN_STREAMS.labels("export").track_inprogress():
            try:
                with tempfile.TemporaryFile(dir=self._transfers.spool) as spool:
                    content = await self._write(cast("BinaryIO", spool), principal, record, kind)
                    unchanged = await asyncio.to_thread(
                        _deliver, cast("BinaryIO", spool), content, place, request.overwrite
                    )
            except OSError as exc:
                # The place explains its own faults: this is the spool's.
                raise place_failed(_shown(self._transfers.spool), exc.strerror or exc) from exc
        return Response(
            uri=request.uri,
            row_count=record.next_offset,
            size_bytes=content.size_bytes,
            sha256=content.sha256.hex(),
            unchanged=unchanged,
        )

    async def _write(
        self, spool: BinaryIO, principal: Principal, record: records_pb2.JobRecord, kind: Format
    ) -> Existing:
        tasks = self._tasks(record.spec.name)
        file: ResultFile = open_result_file(kind, spool, public_job(record, self._store))
        request = job_service_pb2.ReadResultsRequest(name=record.spec.name)
        async for frame in self._results.handle(principal, request):
            asked = [await anext(tasks) for _ in frame.results]
            await asyncio.to_thread(file.write, frame.results, asked)
        return await asyncio.to_thread(file.finish)

    async def _tasks(self, name: str) -> AsyncIterator[str]:
        """What each row asked for: it decides the shape of the answer in OpenAI's form."""
        for segment in await self._scheduler.list_segments(name):
            batches = read_batches(self._store, segment.key, columns=["task"])
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                for task in batch.column("task").to_pylist():
                    yield task


def _deliver(spool: BinaryIO, content: Existing, place: Place, overwrite: bool) -> bool:
    """Put the file in its place; True when it was there already."""
    there = place.existing()
    if there == content:
        return True
    if there is not None and not overwrite:
        raise exists(place.uri)
    spool.seek(0)
    place.write(spool, overwrite=overwrite)
    return False


def _check_ended(record: records_pb2.JobRecord) -> None:
    if not is_terminal(record.state):
        state = job_pb2.JobState.Name(record.state).removeprefix("JOB_STATE_")
        raise TidemillError(
            Reason.JOB_NOT_TERMINAL,
            f"job {record.spec.name} is {state}; its results can be exported once it ended: wait, or cancel it",
            metadata={"job": record.spec.name, "state": state},
        )


def _shown(spool: Path) -> str:
    return f"the gateway's folder for files on their way, {spool} (TIDEMILL_GATEWAY_SPOOL)"

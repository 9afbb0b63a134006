"""New jobs of rows that are stored already."""

from services.gateway.background import Background
from services.gateway.catalogue import ModelCatalogue
from services.gateway.frames import Frame
from services.gateway.refusals import raise_refusal
from services.gateway.scheduler import Scheduler
from services.gateway.seal import Sealer
from services.gateway.stored_requests import StoredRequests
from services.gateway.writers import Writers, ignore_end, ignore_failure
from tidemill import names
from tidemill.errors import TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.v1 import job_pb2, job_service_pb2


class JobCopier:
    """Makes sealed jobs of stored rows. A call with a `request_id` that broke off goes on where its rows ended."""

    def __init__(
        self,
        writers: Writers,
        sealer: Sealer,
        catalogue: ModelCatalogue,
        *,
        scheduler: Scheduler,
        background: Background,
    ) -> None:
        self._writers = writers
        self._sealer = sealer
        self._catalogue = catalogue
        self._scheduler = scheduler
        self._background = background

    async def make(self, spec: records_pb2.JobSpec, rows: StoredRequests) -> records_pb2.JobRecord:
        """The sealed job of these rows.

        Without a `request_id` nothing is left half-done; with one, the metadata of an error name the job that waits to
        be gone on with, as `unsealed_job`.
        """
        await self._catalogue.require(spec.model)
        record = await self._scheduler.create_job(spec)
        if record.state != job_pb2.JOB_STATE_RECEIVING:
            return record
        filled = False
        try:
            record = await self._fill(record, rows)
            filled = True
        except TidemillError as exc:
            exc.metadata["unsealed_job"] = record.spec.name
            raise
        finally:
            if not filled and not spec.request_id:
                self._background.run(self._scheduler.cancel_job(record.spec.name))
        return record

    async def _fill(self, record: records_pb2.JobRecord, stored: StoredRequests) -> records_pb2.JobRecord:
        appender = await self._writers.open(names.parse_job(record.spec.name), ignore_end, ignore_failure)
        try:
            offset = appender.received_end
            async for rows in stored.frames(offset):
                message = job_service_pb2.AppendRowsRequest(offset=offset, rows=rows)
                raise_refusal(await appender.append(Frame(offset, message.rows, message)))
                offset += len(rows)
            await appender.flush()
            return await self._sealer.seal_rows(record.spec, appender.frontier, appender.stored.segments)
        finally:
            self._writers.close(appender)

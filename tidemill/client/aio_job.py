"""A handle on one job for programs with an event loop; `JobHandle` with `await`."""

from collections.abc import AsyncGenerator, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

from tidemill.client import calls
from tidemill.client.aio_transport import AioTransport
from tidemill.client.arrow import BatchBuilder
from tidemill.client.cursors import Order, ResultsCursor, WatchCursor
from tidemill.client.optional import require
from tidemill.client.terms import Deadline, Terms
from tidemill.client.vectors import EMBEDDING_FIELDS, vectors
from tidemill.errors import TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, provenance_pb2, row_pb2, transfer_pb2


class AsyncJobHandle:
    """One job by its name, `tenants/{tenant}/jobs/{ULID}`. All methods may raise TidemillError."""

    def __init__(self, transport: AioTransport, name: str, *, trace: str = "") -> None:
        self._transport = transport
        self.trace = trace
        self.name = name

    def __repr__(self) -> str:
        return f"AsyncJobHandle({self.name!r})"

    async def get(self) -> job_pb2.Job:
        """The job as it stands."""
        return await self._call(calls.get_job(self.name))

    async def wait(self, timeout: float | None = None) -> job_pb2.Job:  # noqa: ASYNC109 - DEADLINE_EXCEEDED names the job
        """The job once it is terminal; DEADLINE_EXCEEDED after `timeout` seconds. The job itself goes on then."""
        return [job async for job in self.watch(timeout=timeout)][-1]

    def watch(self, after_revision: int = 0, timeout: float | None = None) -> AsyncGenerator[job_pb2.Job]:
        """Snapshots of the job as it changes, to the terminal one; survives a restart of the service."""
        return self._transport.stream(WatchCursor(self.name, after_revision, timeout), trace=self.trace)

    def results(
        self, order: Order = "input", start: int = 0, *, follow: bool = True, fields: Collection[str] | None = None
    ) -> AsyncGenerator[row_pb2.RowResult]:
        """The answers, from offset `start` on; as `JobHandle.results`."""
        cursor = ResultsCursor(self.name, order, start, follow=follow, fields=fields)
        return self._transport.stream(cursor, trace=self.trace)

    async def arrow_batches(
        self, order: Order = "input", *, follow: bool = True, fields: Collection[str] | None = None
    ) -> AsyncGenerator[Any]:
        """The answers as `pyarrow.RecordBatch`es of at most 1024 rows and about 8 MiB, fetched as they are taken."""
        builder = BatchBuilder(fields)
        async for result in self.results(order, follow=follow, fields=fields):
            if batch := builder.add(result):
                yield batch
        yield builder.finish()

    async def to_arrow(self, fields: Collection[str] | None = None) -> Any:
        """All answers in input order as a `pyarrow.Table`; waits for the job. Needs pyarrow."""
        pa = require("pyarrow", "results as Arrow")
        return pa.Table.from_batches([batch async for batch in self.arrow_batches(fields=fields)])

    async def to_pandas(self, fields: Collection[str] | None = None) -> Any:
        """All answers in input order as a `pandas.DataFrame`; waits for the job. Needs pandas and pyarrow."""
        require("pandas", "results as a DataFrame")
        return (await self.to_arrow(fields)).to_pandas()

    async def to_numpy(self) -> Any:
        """All embeddings in input order as a float32 array `(rows, dimensions)`; waits for the job. Needs NumPy."""
        return vectors([result async for result in self.results(fields=EMBEDDING_FIELDS)])

    async def cancel(self) -> job_pb2.Job:
        """Stop the job and keep its finished rows. A finished job is JOB_TERMINAL."""
        return await self._call(calls.cancel_job(self.name))

    async def pause(self) -> job_pb2.Job:
        """Give the job's rows no more to workers until it is resumed."""
        return await self._call(calls.pause_job(self.name))

    async def resume(self) -> job_pb2.Job:
        """Let the paused job go on."""
        return await self._call(calls.resume_job(self.name))

    async def update(self, *, deadline: Deadline | None = None, **terms: Unpack[Terms]) -> job_pb2.Job:
        """Change what is given of a job that has not ended; as `JobHandle.update`."""
        return await self._call(calls.update_job(self.name, deadline, terms))

    async def delete(self, etag: str = "") -> datetime:
        """Hide the finished job at once; as `JobHandle.delete`."""
        return (await self._call(calls.delete_job(self.name, etag))).purge_time.ToDatetime(UTC)

    async def retry_failed_rows(
        self, *, deadline: str | float | timedelta | None = None, request_id: str = ""
    ) -> "AsyncJobHandle":
        """Ask the failed rows of the finished job again, in a job of their own; as `JobHandle.retry_failed_rows`."""
        try:
            job = await self._call(calls.retry_failed_rows(self.name, deadline, request_id))
        except TidemillError as exc:
            if not request_id and (left := exc.metadata.get("unsealed_job")):
                await self._call(calls.cancel_job(left))
            raise
        return AsyncJobHandle(self._transport, job.name, trace=self.trace)

    async def estimate(self) -> job_service_pb2.EstimateJobResponse:
        """What the rest of the job costs and when it ends."""
        return await self._call(calls.estimate_job(self.name))

    async def explain(self) -> job_service_pb2.ExplainJobResponse:
        """What the job waits for, and what would change it."""
        return await self._call(calls.explain_job(self.name))

    async def import_rows(self, uri: str, start: int = 0) -> transfer_pb2.ImportRowsResponse:
        """As `JobHandle.import_rows`."""
        return await self._call(calls.import_rows(self.name, uri, start))

    async def export(self, uri: str, *, overwrite: bool = False) -> transfer_pb2.ExportResultsResponse:
        """As `JobHandle.export`."""
        return await self._call(calls.export_results(self.name, uri, overwrite=overwrite))

    async def provenance(self, row_index: int) -> provenance_pb2.RowProvenance:
        """As `JobHandle.provenance`."""
        return await self._call(calls.get_row_provenance(self.name, row_index))

    async def _call(self, call: calls.Call[calls.T]) -> calls.T:
        return await self._transport.call(call, trace=self.trace)

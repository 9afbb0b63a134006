"""A handle on one job: wait for it, follow it, read its answers, change it, end it, ask about it."""

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

from tidemill.client import calls
from tidemill.client.arrow import result_reader
from tidemill.client.cursors import Order, ResultsCursor, WatchCursor
from tidemill.client.optional import require
from tidemill.client.replay import Replay, compare
from tidemill.client.terms import Deadline, Terms
from tidemill.client.transport import Transport
from tidemill.client.vectors import EMBEDDING_FIELDS, vectors
from tidemill.errors import TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, provenance_pb2, row_pb2, transfer_pb2


class JobHandle:
    """One job by its name, `tenants/{tenant}/jobs/{ULID}`. All methods may raise TidemillError."""

    def __init__(self, transport: Transport, name: str, *, trace: str = "") -> None:
        self._transport = transport
        self.trace = trace
        self.name = name

    def __repr__(self) -> str:
        return f"JobHandle({self.name!r})"

    def get(self) -> job_pb2.Job:
        """The job as it stands."""
        return self._call(calls.get_job(self.name))

    def wait(self, timeout: float | None = None) -> job_pb2.Job:
        """The job once it is terminal; DEADLINE_EXCEEDED after `timeout` seconds. The job itself goes on then."""
        *_, last = self.watch(timeout=timeout)
        return last

    def watch(self, after_revision: int = 0, timeout: float | None = None) -> Iterator[job_pb2.Job]:
        """Snapshots of the job as it changes, to the terminal one; survives a restart of the service."""
        return self._transport.stream(WatchCursor(self.name, after_revision, timeout), trace=self.trace)

    def results(
        self, order: Order = "input", start: int = 0, *, follow: bool = True, fields: Collection[str] | None = None
    ) -> Iterator[row_pb2.RowResult]:
        """The answers, from offset `start` on, as `order` has them; survives a restart of the service.

        With `follow` it waits for rows that are not done and ends when the job has; without, it gives what there is.
        A frame of them, at most about 1 MiB, is held at a time. `fields` are those of `RowResult` that are wanted, such
        as `["text"]`, beside `row_index`, `custom_id` and `status`; others are not even read.
        """
        cursor = ResultsCursor(self.name, order, start, follow=follow, fields=fields)
        return self._transport.stream(cursor, trace=self.trace)

    def arrow_batches(
        self, order: Order = "input", *, follow: bool = True, fields: Collection[str] | None = None
    ) -> Any:
        """The answers as a `pyarrow.RecordBatchReader` of the columns in `tidemill.client.arrow.result_schema`.

        They are fetched as it is read, in batches of at most 1024 rows and about 8 MiB, so any number of them may be
        written on, to Parquet for one. polars and DuckDB take the reader as it is. With `fields`, as of `results`, it
        has their columns only. Needs pyarrow.
        """
        return result_reader(self.results(order, follow=follow, fields=fields), fields)

    def to_arrow(self, fields: Collection[str] | None = None) -> Any:
        """All answers in input order as a `pyarrow.Table`; waits for the job. Needs pyarrow."""
        return self.arrow_batches(fields=fields).read_all()

    def to_pandas(self, fields: Collection[str] | None = None) -> Any:
        """All answers in input order as a `pandas.DataFrame`; waits for the job. Needs pandas and pyarrow."""
        require("pandas", "results as a DataFrame")
        return self.arrow_batches(fields=fields).read_pandas()

    def to_numpy(self) -> Any:
        """All embeddings in input order as a float32 array `(rows, dimensions)`; waits for the job. Needs NumPy.

        INVALID_ARGUMENT names the first row that has none.
        """
        return vectors(self.results(fields=EMBEDDING_FIELDS))

    def cancel(self) -> job_pb2.Job:
        """Stop the job and keep its finished rows. A finished job is JOB_TERMINAL."""
        return self._call(calls.cancel_job(self.name))

    def pause(self) -> job_pb2.Job:
        """Give the job's rows no more to workers until it is resumed. Repeating it is fine."""
        return self._call(calls.pause_job(self.name))

    def resume(self) -> job_pb2.Job:
        """Let the paused job go on. Repeating it is fine."""
        return self._call(calls.resume_job(self.name))

    def update(self, *, deadline: Deadline | None = None, **terms: Unpack[Terms]) -> job_pb2.Job:
        """Change what is given of a job that has not ended; a deadline counts from now, unless it is a datetime."""
        return self._call(calls.update_job(self.name, deadline, terms))

    def delete(self, etag: str = "") -> datetime:
        """Hide the finished job at once; returns when its data is removed for good. JOB_NOT_TERMINAL before its end.

        With the `etag` of a job that was read, only while it is as it was then; else ETAG_MISMATCH.
        """
        return self._call(calls.delete_job(self.name, etag)).purge_time.ToDatetime(UTC)

    def retry_failed_rows(
        self, *, deadline: str | float | timedelta | None = None, request_id: str = ""
    ) -> "JobHandle":
        """Ask the failed rows of the finished job again, in a job of their own with the same `custom_id`s.

        NO_FAILED_ROWS when there are none. The same `request_id` returns the same job.
        """
        return self._ask_again(calls.retry_failed_rows(self.name, deadline, request_id), request_id)

    def replay(
        self,
        rows: Iterable[int],
        *,
        deadline: str | float | timedelta | None = None,
        timeout: float | None = None,
        request_id: str = "",
    ) -> Replay:
        """Ask these rows of the finished job again, wait, and compare the answers bit for bit; at most 10,000 rows.

        DEADLINE_EXCEEDED after `timeout` seconds; the new job goes on, and the same `request_id` comes back to it.
        """
        chosen = sorted(set(rows))
        again = self._ask_again(calls.replay_rows(self.name, chosen, deadline, request_id), request_id)
        again.wait(timeout)
        pairs = ((self.provenance(row), again.provenance(place)) for place, row in enumerate(chosen))
        return Replay(again.name, tuple(compare(before, after) for before, after in pairs))

    def _ask_again(self, call: calls.Call[job_pb2.Job], request_id: str) -> "JobHandle":
        try:
            job = self._call(call)
        except TidemillError as exc:
            # Nobody knows the id that was made up here, so nobody could go on with the job.
            if not request_id and (left := exc.metadata.get("unsealed_job")):
                self._call(calls.cancel_job(left))
            raise
        return JobHandle(self._transport, job.name, trace=self.trace)

    def estimate(self) -> job_service_pb2.EstimateJobResponse:
        """What the rest of the job costs and when it ends."""
        return self._call(calls.estimate_job(self.name))

    def explain(self) -> job_service_pb2.ExplainJobResponse:
        """What the job waits for, and what would change it."""
        return self._call(calls.explain_job(self.name))

    def import_rows(self, uri: str, start: int = 0) -> transfer_pb2.ImportRowsResponse:
        """Append the rows of a `.jsonl` or `.parquet` file that the gateway may read, as rows from
        `start` on: `file:///…` or `s3://…`.

        Repeating it resumes. Seal the job with the answer's `next_offset` afterwards.
        """
        return self._call(calls.import_rows(self.name, uri, start))

    def export(self, uri: str, *, overwrite: bool = False) -> transfer_pb2.ExportResultsResponse:
        """Write all answers of the finished job to a `.jsonl` or `.parquet` file where the gateway may write.

        Repeating it is fine; a file with other content is FILE_EXISTS without `overwrite`.
        """
        return self._call(calls.export_results(self.name, uri, overwrite=overwrite))

    def provenance(self, row_index: int) -> provenance_pb2.RowProvenance:
        """Where the answer of one row comes from, digest by digest; OFFSET_OUT_OF_RANGE without such a row."""
        return self._call(calls.get_row_provenance(self.name, row_index))

    def _call(self, call: calls.Call[calls.T]) -> calls.T:
        return self._transport.call(call, trace=self.trace)

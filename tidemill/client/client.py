"""The synchronous client of the gateway."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from tidemill.client import calls
from tidemill.client.admin import Admin
from tidemill.client.answers import OnFailure, check_option, judge
from tidemill.client.append import Appender
from tidemill.client.job import JobHandle
from tidemill.client.settings import resolve
from tidemill.client.sources import Columns, RowSource, open_rows
from tidemill.client.terms import JobOptions, new_job
from tidemill.client.tracing import traceparent
from tidemill.client.transport import PATIENCE_SECONDS, Transport
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2, quota_service_pb2, row_pb2


class Client:
    """Submits jobs to a gateway and reads their answers. Use it as a context manager, or call `close`.

    Every method may raise `tidemill.errors.TidemillError`; its `reason` is stable, its message says what to do.
    """

    def __init__(
        self,
        address: str | None = None,
        api_key: str | None = None,
        *,
        ca: str | Path | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Connect lazily to `address` (`host:port`, or `grpcs://host:port` for TLS) with `api_key`.

        Without arguments: `TIDEMILL_ADDRESS` and `TIDEMILL_API_KEY`, else the service that `tidemill up` runs here.
        `ca`: PEM file of who may sign for the gateway, `TIDEMILL_CA`; it means TLS.
        `patience`: seconds that a call goes on trying while the service is away.
        """
        self._transport = Transport(resolve(address, api_key, ca), patience)
        self.admin = Admin(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def submit(
        self,
        rows: RowSource,
        *,
        model: str,
        columns: Columns | None = None,
        request_id: str = "",
        **options: Unpack[JobOptions],
    ) -> JobHandle:
        """Create a job, append `rows` as they come, seal it, and return its handle. Rows are never held all at once.

        Args:
            rows: prompts, dictionaries or messages (`tidemill.client.rows.RowLike`) from any iterable or generator; or
                a DataFrame, an Arrow table, reader or dataset; or the path of a JSONL or Parquet file.
            model: id as `models()` lists it.
            columns: which column of a table has what, as in `{"prompt": "question", "custom_id": "id"}`.
            request_id: makes the call repeatable: with the same id and the same rows it resumes the job it began.
            options: `deadline`, `sampling`, `labels` and so on, see `tidemill.client.terms.JobOptions`.

        DEADLINE_INFEASIBLE leaves the job unsealed: update its deadline and seal it again.
        """
        job, source = new_job(model, **options), open_rows(rows, model=model, columns=columns)
        handle, created = self.create(job, request_id=request_id)
        if created.state == job_pb2.JOB_STATE_RECEIVING:
            self.seal(handle, self.append(handle, source))
        return handle

    def new_job(self, *, model: str, **options: Unpack[JobOptions]) -> job_pb2.Job:
        """The job that `submit` creates from these arguments."""
        return new_job(model, **options)

    def create(self, job: job_pb2.Job, *, request_id: str = "") -> tuple[JobHandle, job_pb2.Job]:
        """Create `job`, or find the one that the same `request_id` created; it receives rows until it is sealed."""
        trace = traceparent()
        created = self._transport.call(calls.create_job(job, request_id), trace=trace)
        return JobHandle(self._transport, created.name, trace=trace), created

    def append(self, handle: JobHandle, rows: RowSource, *, columns: Columns | None = None) -> int:
        """Append `rows`, which begin at row 0 of the job, durably, and return how many there are.

        A fault leaves the job open and what was acknowledged intact; the exception's notes name the job.
        """
        try:
            return Appender(self._transport, handle.name, handle.trace).append(open_rows(rows, columns=columns))
        except Exception as exc:
            exc.add_note(f"{handle.name} is left unsealed with the rows acknowledged so far")
            raise

    def seal(self, handle: JobHandle, row_count: int) -> job_pb2.Job:
        """Fix the job's rows, `row_count` of them, and queue it."""
        return self._transport.call(calls.seal_job(handle.name, row_count), trace=handle.trace)

    def run(
        self,
        prompts: RowSource,
        *,
        model: str,
        columns: Columns | None = None,
        on_failure: OnFailure = "raise",
        **options: Unpack[JobOptions],
    ) -> list[row_pb2.RowResult]:
        """Submit `prompts`, wait, and return their results in the same order, all of them in memory.

        RowsFailedError names the rows that have no answer and holds all results; with `on_failure="return"` they are
        returned instead, with `error_code` and `error_message` set and no text. The rest is as in `submit`.
        """
        check_option(on_failure)
        handle = self.submit(prompts, model=model, columns=columns, **options)
        try:
            return judge(handle.name, list(handle.results()), on_failure)
        except BaseException as exc:
            exc.add_note(f"the job is {handle.name}; it goes on, and its results stay")
            raise

    def estimate(
        self,
        rows: int,
        *,
        model: str,
        prompt_tokens: int = 0,
        output_tokens: int = 0,
        **options: Unpack[JobOptions],
    ) -> job_service_pb2.EstimateJobResponse:
        """What a job of `rows` rows would cost and when it would end, without creating it.

        `prompt_tokens` and `output_tokens` are means over the rows; 0 takes what is usual for the model.
        """
        return self._transport.call(calls.estimate(rows, model, prompt_tokens, output_tokens, **options))

    def job(self, name: str) -> JobHandle:
        """The job called `name`: its full name or the ULID at its end. Only the latter asks the service."""
        return JobHandle(self._transport, name if "/" in name else self._full_name(name), trace=traceparent())

    def _full_name(self, job_id: str) -> str:
        # The key knows its tenant and the client does not; any job of the tenant tells it.
        for job in self.jobs(page_size=1):
            return f"{job.name.rpartition('/')[0]}/{job_id}"
        raise TidemillError(Reason.JOB_NOT_FOUND, f"no job {job_id!r}: you have no jobs yet", metadata={"job": job_id})

    def jobs(
        self,
        states: Iterable[str] = (),
        page_size: int = 100,
        *,
        model: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[job_pb2.Job]:
        """The tenant's jobs, newest first, fetched page by page.

        Only those in `states` (such as `"running"`), for `model`, and with all of `labels`, as far as these are given.
        """
        states, token = tuple(states), ""
        while True:
            page = self._transport.call(calls.list_jobs(states, model, labels, page_size, token))
            yield from page.jobs
            if not (token := page.next_page_token):
                return

    def quota(self, tenant: str = "") -> quota_service_pb2.Quota:
        """What the caller's tenant may hold and what it holds; with an admin key, that of another `tenant` too."""
        return self._transport.call(calls.get_quota(tenant))

    def model(self, name: str) -> model_service_pb2.Model:
        """One model by its id; MODEL_NOT_FOUND when no live worker offers it."""
        return self._transport.call(calls.get_model(name))

    def models(self) -> list[model_service_pb2.Model]:
        """The models that live workers offer."""
        models, token = list[model_service_pb2.Model](), ""
        while True:
            page = self._transport.call(calls.list_models(token))
            models.extend(page.models)
            if not (token := page.next_page_token):
                return models

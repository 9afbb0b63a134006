"""The client of the gateway for programs with an event loop; `Client` with `await`."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from tidemill.client import calls
from tidemill.client.aio_append import AioAppender
from tidemill.client.aio_job import AsyncJobHandle
from tidemill.client.aio_rows import AsyncRowSource, open_batches
from tidemill.client.aio_transport import AioTransport
from tidemill.client.answers import OnFailure, check_option, judge
from tidemill.client.settings import resolve
from tidemill.client.sources import Columns
from tidemill.client.terms import JobOptions, new_job
from tidemill.client.tracing import traceparent
from tidemill.client.transport import PATIENCE_SECONDS
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2, quota_service_pb2, row_pb2


class AsyncClient:
    """Submits jobs to a gateway and reads their answers. Use it with `async with`, or await `close`.

    It belongs to the event loop of its first call. Every method may raise `tidemill.errors.TidemillError`.
    """

    def __init__(
        self,
        address: str | None = None,
        api_key: str | None = None,
        *,
        ca: str | Path | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """As `Client`: lazily, to where the arguments, the environment or `tidemill up` say."""
        self._transport = AioTransport(resolve(address, api_key, ca), patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.close()

    async def submit(
        self,
        rows: AsyncRowSource,
        *,
        model: str,
        columns: Columns | None = None,
        request_id: str = "",
        **options: Unpack[JobOptions],
    ) -> AsyncJobHandle:
        """Create a job, append `rows` as they come, seal it, and return its handle; as `Client.submit`.

        `rows` may be an asynchronous iterable or generator as well; it is asked for no more than can be sent.
        """
        job, batches = new_job(model, **options), await open_batches(rows, model=model, columns=columns)
        handle, created = await self.create(job, request_id=request_id)
        if created.state == job_pb2.JOB_STATE_RECEIVING:
            try:
                count = await AioAppender(self._transport, handle.name, handle.trace).append(batches)
            except Exception as exc:
                exc.add_note(f"{handle.name} is left unsealed with the rows acknowledged so far")
                raise
            await self.seal(handle, count)
        return handle

    async def create(self, job: job_pb2.Job, *, request_id: str = "") -> tuple[AsyncJobHandle, job_pb2.Job]:
        """Create `job`, or find the one that the same `request_id` created; it receives rows until it is sealed."""
        trace = traceparent()
        created = await self._transport.call(calls.create_job(job, request_id), trace=trace)
        return AsyncJobHandle(self._transport, created.name, trace=trace), created

    async def seal(self, handle: AsyncJobHandle, row_count: int) -> job_pb2.Job:
        """Fix the job's rows, `row_count` of them, and queue it."""
        return await self._transport.call(calls.seal_job(handle.name, row_count), trace=handle.trace)

    async def run(
        self,
        prompts: AsyncRowSource,
        *,
        model: str,
        columns: Columns | None = None,
        on_failure: OnFailure = "raise",
        **options: Unpack[JobOptions],
    ) -> list[row_pb2.RowResult]:
        """Submit `prompts`, wait, and return their results in the same order; as `Client.run`."""
        check_option(on_failure)
        handle = await self.submit(prompts, model=model, columns=columns, **options)
        try:
            return judge(handle.name, [result async for result in handle.results()], on_failure)
        except BaseException as exc:
            exc.add_note(f"the job is {handle.name}; it goes on, and its results stay")
            raise

    async def estimate(
        self,
        rows: int,
        *,
        model: str,
        prompt_tokens: int = 0,
        output_tokens: int = 0,
        **options: Unpack[JobOptions],
    ) -> job_service_pb2.EstimateJobResponse:
        """What a job of `rows` rows would cost and when it would end; as `Client.estimate`."""
        return await self._transport.call(calls.estimate(rows, model, prompt_tokens, output_tokens, **options))

    def job(self, name: str) -> AsyncJobHandle:
        """The job called `name`, `tenants/{tenant}/jobs/{ULID}`."""
        if "/" not in name:
            message = f"{name!r} is not a job's full name, tenants/{{tenant}}/jobs/{{ULID}}"
            raise TidemillError(Reason.INVALID_NAME, message)
        return AsyncJobHandle(self._transport, name, trace=traceparent())

    async def jobs(
        self,
        states: Iterable[str] = (),
        page_size: int = 100,
        *,
        model: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[job_pb2.Job]:
        """The tenant's jobs, newest first, fetched page by page; as `Client.jobs`."""
        states, token = tuple(states), ""
        while True:
            page = await self._transport.call(calls.list_jobs(states, model, labels, page_size, token))
            for job in page.jobs:
                yield job
            if not (token := page.next_page_token):
                return

    async def quota(self, tenant: str = "") -> quota_service_pb2.Quota:
        """What the caller's tenant may hold and what it holds; with an admin key, that of another `tenant` too."""
        return await self._transport.call(calls.get_quota(tenant))

    async def model(self, name: str) -> model_service_pb2.Model:
        """One model by its id; MODEL_NOT_FOUND when no live worker offers it."""
        return await self._transport.call(calls.get_model(name))

    async def models(self) -> list[model_service_pb2.Model]:
        """The models that live workers offer."""
        models, token = list[model_service_pb2.Model](), ""
        while True:
            page = await self._transport.call(calls.list_models(token))
            models.extend(page.models)
            if not (token := page.next_page_token):
                return models

"""One CHUNK lease from engine to commits."""

import asyncio
import contextlib
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Span, SpanKind

from services.inference import metrics
from services.inference.answers import Origin
from services.inference.chunk import Processor, SharedProcessor, run_chunk
from services.inference.engine_config import Call
from services.inference.engines import Engine, Engines
from services.inference.held import HeldLease
from services.inference.link import LeaseVoidError, SchedulerLink
from services.inference.models import ModelFiles
from services.inference.parts import PartCutter, PartWriter
from services.inference.pump import stream_slices
from services.inference.source import InputUnreadableError, plan_slices, read_chunk
from tidemill import rowset, telemetry
from tidemill.encoding import sampling_values
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2

__all__ = ["ChunkTask", "EngineFailedError", "IncompleteError"]

log = telemetry.logger(__name__)
tracer = telemetry.tracer(__name__)


class EngineFailedError(Exception):
    """The engine failed under the chunk; its words. The rows without a result must run again."""


class IncompleteError(Exception):
    """The dataset ended without all rows."""


@dataclass(frozen=True)
class ChunkTask:
    """What running a chunk needs."""

    held: HeldLease
    engines: Engines
    store: ObjectStore
    store_uri: str
    link: SchedulerLink
    call_rows: int
    part_seconds: float

    async def run(self) -> None:
        """Answer the chunk's open rows and commit them, about a second's worth at a time.

        Raises:
            LeaseVoidError: the lease ended before the chunk did.
            EngineUnavailableError, WeightsChangedError: no engine may answer.
            EngineFailedError, IncompleteError: the engine or the dataset failed under the chunk.
            TidemillError: the input cannot be read, or the scheduler refuses the results.
        """
        start = time.monotonic()
        dedicated = self.held.lease.spec.execution_mode == job_pb2.EXECUTION_MODE_DEDICATED
        await (self._dedicated() if dedicated else self._shared())
        metrics.CHUNK_SECONDS.labels(self.held.model, "dedicated" if dedicated else "shared").observe(
            time.monotonic() - start
        )

    async def _shared(self) -> None:
        async with self.engines.hold(self.held.model) as engine:
            origin = self._origin(engine.files, engine.build)
            call = Call(self.held.group, sampling_values(self.held.lease.spec.sampling))
            try:
                await self._answer(SharedProcessor(engine.actor_name, call, origin), engine.files, engine)
            except _ray_errors() as exc:
                await self._blame(engine, exc)

    async def _dedicated(self) -> None:
        from services.inference.dedicated import DedicatedProcessor

        files = await self.engines.ready_files(self.held.model)
        processor = DedicatedProcessor(
            self.engines.config(files),
            sampling_values(self.held.lease.spec.sampling),
            self._origin(files, self.engines.build),
        )
        try:
            await self._answer(processor, files, None)
        except _ray_errors() as exc:
            raise EngineFailedError(_last_line(exc)) from exc

    def _origin(self, files: ModelFiles, build: str) -> Origin:
        return Origin(self.held.lease.attempt, self.held.lease.chunk_start, files.digest, build)

    async def _answer(self, processor: Processor, files: ModelFiles, engine: Engine | None) -> None:
        lease = self.held.lease
        writer = PartWriter(
            self.held,
            self.store,
            self.link,
            chunk_start=lease.chunk_start,
            chunk_rows=lease.chunk_rows,
            done=rowset.from_bytes(lease.done_bitmap),
        )
        aborter = asyncio.create_task(self._abort_when_ended(engine))
        try:
            await self._collect(processor, files, writer)
        except BaseException:
            await _abort(engine, self.held)
            raise
        finally:
            aborter.cancel()
        if self.held.ended:
            raise LeaseVoidError("the lease ended")
        if not writer.complete:
            raise IncompleteError("the dataset ended before every row of the chunk had a result")

    async def _collect(self, processor: Processor, files: ModelFiles, writer: PartWriter) -> None:
        cutter = PartCutter(self.part_seconds)
        wanted = plan_slices(self.held.lease, self.call_rows)
        build = self.engines.build
        if not wanted:
            return
        with tracer.start_as_current_span("inference.engine", kind=SpanKind.CLIENT) as span:
            usage = _Usage()
            _describe(span, self.held, build)
            tables = stream_slices(
                lambda: run_chunk(read_chunk(self.store_uri, wanted), processor), lambda: cutter.seconds_left
            )
            async with aclosing(tables):
                async for table in tables:
                    if table is not None:
                        usage.add(table)
                        cutter.add(table)
                    if cutter.seconds_left == 0:
                        await self._commit(writer, cutter, files)
            usage.describe(span)
        await self._commit(writer, cutter, files)

    async def _commit(self, writer: PartWriter, cutter: PartCutter, files: ModelFiles) -> None:
        tables = cutter.take()
        if not tables or self.held.void.is_set():
            return
        await writer.commit(tables, files.digest, self.engines.build)
        self.engines.proved(self.held.model)

    async def _abort_when_ended(self, engine: Engine | None) -> None:
        """Stop the rows at the engine: closing Ray's iterator alone leaves them running."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.held.void, self.held.stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        await _abort(engine, self.held)

    async def _blame(self, engine: Engine, exc: BaseException) -> None:
        """Tell a dead engine from a failed task."""
        from ray.exceptions import RayActorError

        from services.inference.actor import EngineLostError

        causes = list(_causes(exc))
        if any(isinstance(cause, RayActorError | EngineLostError) for cause in causes):
            await self.engines.lost(self.held.model, engine, _last_line(exc))
        for cause in causes:
            if isinstance(cause, InputUnreadableError):
                raise cause.error from exc
        raise EngineFailedError(_last_line(exc)) from exc


async def _abort(engine: Engine | None, held: HeldLease) -> None:
    if engine is not None:
        with contextlib.suppress(*_ray_errors()):
            await engine.actor.abort.remote(held.group)


@dataclass
class _Usage:
    rows: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def add(self, table: Any) -> None:
        self.rows += table.num_rows
        self.prompt_tokens += sum(table.column("prompt_tokens").to_pylist())
        self.output_tokens += sum(table.column("output_tokens").to_pylist())

    def describe(self, span: Span) -> None:
        span.set_attributes(
            {
                "tidemill.rows": self.rows,
                "gen_ai.usage.input_tokens": self.prompt_tokens,
                "gen_ai.usage.output_tokens": self.output_tokens,
            }
        )


def _describe(span: Span, held: HeldLease, build: str) -> None:
    """Semantic conventions for generative AI, with the job's own sampling values."""
    span.set_attributes(
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": held.model,
            "gen_ai.response.model": held.model,
            "tidemill.job": held.job,
            "tidemill.fence": held.lease.fence,
            "tidemill.engine_build": build,
        }
    )
    values = sampling_values(held.lease.spec.sampling)
    for name in ("temperature", "top_p", "top_k", "max_tokens", "frequency_penalty", "presence_penalty", "seed"):
        if name in values:
            span.set_attribute(f"gen_ai.request.{name}", values[name])


def _ray_errors() -> tuple[type[BaseException], ...]:
    from ray.exceptions import RayError

    return (RayError,)


def _causes(exc: BaseException | None) -> list[BaseException]:
    """The error, what Ray wrapped in it, and what those came from."""
    found: list[BaseException] = []
    pending = [exc]
    while pending:
        item = pending.pop()
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            pending += [getattr(item, "cause", None), item.__cause__]
    return found


def _last_line(exc: BaseException) -> str:
    deepest = _causes(exc)[-1]
    text = str(deepest).strip()
    return (text.splitlines()[-1] if text else type(deepest).__name__)[:500]

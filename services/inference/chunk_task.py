"""One CHUNK lease from engine to commits."""

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from opentelemetry.trace import SpanKind

from services.inference import metrics
from services.inference.answers import Origin
from services.inference.backlog import Backlog
from services.inference.blame import (
    EngineFailedError,
    NodeLostError,
    engine_died,
    input_error,
    last_words,
    ray_errors,
    unreachable,
)
from services.inference.busy import Stay
from services.inference.chunk import Processor, SharedProcessor, run_chunk
from services.inference.condemned import condemned_table
from services.inference.engine_config import Call
from services.inference.engine_span import Usage, describe
from services.inference.engines import Engines
from services.inference.held import HeldLease
from services.inference.identity import Identity, Mode, Record, identity_of, publish
from services.inference.link import LeaseVoidError, SchedulerLink
from services.inference.models import ModelFiles
from services.inference.parts import PartCutter, PartWriter
from services.inference.pump import stream_slices
from services.inference.resident import Engine, WeightsChangedError
from services.inference.source import plan_slices, read_chunk, verify_segments
from services.inference.store_link import StoreLink
from services.inference.tasks import GENERATE
from tidemill import rowset, telemetry
from tidemill.encoding import sampling_values
from tidemill.sampling_limits import shared_only
from tidemill.v1 import job_pb2

__all__ = ["ChunkTask", "IncompleteError"]

log = telemetry.logger(__name__)
tracer = telemetry.tracer(__name__)

_LOOK_SECONDS = 0.2
_ABORT_SECONDS = 10.0


class IncompleteError(Exception):
    """The dataset ended without all rows."""


@dataclass(frozen=True)
class ChunkTask:
    """What running a chunk needs."""

    held: HeldLease
    engines: Engines
    store: StoreLink
    store_uri: str
    link: SchedulerLink
    call_rows: int
    part_seconds: float
    backlog: Backlog

    async def run(self) -> None:
        """Answer the chunk's open rows and commit them, about a second's worth at a time.

        Raises:
            LeaseVoidError: the lease ended before the chunk did.
            EngineUnavailableError, WeightsChangedError: no engine may answer.
            EngineFailedError, IncompleteError: the engine or the dataset failed under the chunk.
            TidemillError: the input cannot be read, or the scheduler refuses the results.
        """
        start, writer = time.monotonic(), self._writer()
        await self.store.call(lambda: verify_segments(self.store.checked, self.held.lease), self.held.void)
        # First, and without an engine: these rows are what engines die of.
        table = await self.store.call(lambda: condemned_table(self.store.store, self.held.lease), self.held.void)
        if table is not None:
            await writer.commit([table], "", "")
        if writer.complete:
            return
        dedicated = self.held.lease.spec.execution_mode == job_pb2.EXECUTION_MODE_DEDICATED and self._fits_dedicated()
        await (self._dedicated(writer) if dedicated else self._shared(writer))
        metrics.CHUNK_SECONDS.labels(self.held.model, "dedicated" if dedicated else "shared").observe(
            time.monotonic() - start
        )

    def _fits_dedicated(self) -> bool:
        """Ray Data LLM's stage returns one text a row, so what needs more runs shared, whatever the job's mode."""
        files = self.engines.files(self.held.model)
        values = sampling_values(self.held.lease.spec.sampling)
        return (files is None or files.tasks == GENERATE) and not shared_only(values)

    def _writer(self) -> PartWriter:
        lease = self.held.lease
        return PartWriter(
            self.held,
            self.store,
            self.link,
            chunk_start=lease.chunk_start,
            chunk_rows=lease.chunk_rows,
            done=rowset.from_bytes(lease.done_bitmap),
        )

    async def _shared(self, writer: PartWriter) -> None:
        async with AsyncExitStack() as stack:
            gate = self.engines.gate(self.held.model)
            await self.held.unless_ended(stack.enter_async_context(gate.enter(alone=self.held.lease.alone)))
            hold = self.engines.hold(self.held.model)
            engine = await self.held.unless_ended(stack.enter_async_context(hold))
            self._check_digest(engine.files)
            call = Call(self.held.group, sampling_values(self.held.lease.spec.sampling))
            try:
                origin = self._origin(engine.files, engine.build, await self._record(engine))
                await self._answer(SharedProcessor(engine.actor_name, call, origin), origin, writer, engine)
            except ray_errors() as exc:
                await self._blame(engine, exc)

    async def _dedicated(self, writer: PartWriter) -> None:
        from services.inference.dedicated import DedicatedProcessor

        files = await self.held.unless_ended(self.engines.ready_files(self.held.model))
        self._check_digest(files)
        config = self.engines.config(files)
        record = await self._publish(identity_of(config, config.dtype), files, "dedicated")
        origin = self._origin(files, self.engines.build, record)
        processor = DedicatedProcessor(config, sampling_values(self.held.lease.spec.sampling), origin)
        try:
            await self._answer(processor, origin, writer, None)
        except ray_errors() as exc:
            raise EngineFailedError(last_words(exc), died=engine_died(exc, None)) from exc
        finally:
            await self.engines.reap()

    def _check_digest(self, files: ModelFiles) -> None:
        wanted = self.held.lease.model_digest
        if wanted and files.digest != wanted:
            raise WeightsChangedError(
                f"the job was accepted with weights {wanted[:16]} of {self.held.model}, and {files.folder} holds "
                f"{files.digest[:16]}: bring the weights back and retry the failed rows, or submit the job anew"
            )

    async def _record(self, engine: Engine) -> Record:
        """The engine's record in the store; asked once."""
        if engine.record is None:
            identity = await engine.actor.identity.remote()
            engine.record = await self._publish(identity, engine.files, "shared")
        return engine.record

    async def _publish(self, identity: Identity, files: ModelFiles, mode: Mode) -> Record:
        return await self.store.call(lambda: publish(self.store.store, identity, files, mode), self.held.void)

    def _origin(self, files: ModelFiles, build: str, record: Record) -> Origin:
        return Origin(self.held.lease.attempt, self.held.lease.chunk_start, files.digest, build, record)

    async def _answer(self, processor: Processor, origin: Origin, writer: PartWriter, engine: Engine | None) -> None:
        stay = engine.busy.enter() if engine else None
        aborter = asyncio.create_task(self._abort_when_ended(engine))
        try:
            await self._collect(processor, origin, writer, stay)
        except BaseException:
            await _abort(engine, self.held)
            raise
        finally:
            aborter.cancel()
            if stay:
                stay.leave()
        if writer.complete:
            return
        if self.held.ended:
            raise LeaseVoidError("the lease ended")
        raise IncompleteError("the dataset ended before every row of the chunk had a result")

    async def _collect(self, processor: Processor, origin: Origin, writer: PartWriter, stay: Stay | None) -> None:
        cutter = PartCutter(self.part_seconds)
        wanted = plan_slices(self.held.lease, self.call_rows)
        with tracer.start_as_current_span("inference.engine", kind=SpanKind.CLIENT) as span:
            usage = Usage()
            describe(span, self.held, self.engines.build)
            tables = stream_slices(
                lambda: run_chunk(read_chunk(self.store_uri, wanted), processor),
                lambda: _patience(cutter, stay),
                self.backlog,
            )
            try:
                async with aclosing(tables):
                    async for table in tables:
                        if table is not None:
                            usage.add(table)
                            cutter.add(table)
                        if cutter.seconds_left == 0:
                            await self._commit(writer, cutter, origin, stay)
                        if stay is None and self.held.ended:
                            break  # no engine to abort the rows at: leaving ends Ray's tasks and actors
            except ray_errors():
                # What had finished before the engine failed need not run again.
                await self._commit(writer, cutter, origin, stay)
                raise
            usage.describe(span)
        if stay:
            stay.leave()
        await self._commit(writer, cutter, origin, stay)

    async def _commit(self, writer: PartWriter, cutter: PartCutter, origin: Origin, stay: Stay | None) -> None:
        tables = cutter.take()
        if not tables or self.held.void.is_set():
            return
        await writer.commit(tables, origin.model_digest, origin.engine_build, stay, origin.record)
        self.engines.proved(self.held.model)

    async def _abort_when_ended(self, engine: Engine | None) -> None:
        """Stop the rows at the engine: closing Ray's iterator alone leaves them running."""
        await self.held.wait_ended()
        await _abort(engine, self.held)
        log.info("rows aborted", job=self.held.job, fence=self.held.lease.fence)

    async def _blame(self, engine: Engine, exc: BaseException) -> None:
        """Tell a dead engine from a failed task."""
        if engine_died(exc, engine.actor_id):
            await self.engines.lost(self.held.model, engine, last_words(exc))
        elif unreachable(exc):
            await self.engines.probe(self.held.model, engine)
        if unreadable := input_error(exc):
            raise unreadable.error from exc
        if engine.node_died:
            raise NodeLostError(f"the node of the engine died: {last_words(exc)}") from exc
        # Its death is the news of whoever saw it first; those who trip over the body were inside as well.
        raise EngineFailedError(last_words(exc), died=engine.dead) from exc


def _patience(cutter: PartCutter, stay: Stay | None) -> float | None:
    """Seconds to wait for the next table; without an engine of ours, no longer than a cancel may wait."""
    left = cutter.seconds_left
    return left if stay else min(_LOOK_SECONDS, _LOOK_SECONDS if left is None else left)


async def _abort(engine: Engine | None, held: HeldLease) -> None:
    if engine is not None:
        # Without Ray's head there may never be an answer.
        with contextlib.suppress(TimeoutError, *ray_errors()):
            await asyncio.wait_for(engine.actor.abort.remote(held.group), _ABORT_SECONDS)

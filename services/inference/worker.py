"""The worker: takes leases, runs them side by side, keeps them alive, gives them back in order."""

import asyncio
import os
import secrets
import socket

from opentelemetry.trace import Status, StatusCode

from services.inference import metrics
from services.inference.backlog import Backlog
from services.inference.blame import EngineFailedError
from services.inference.chunk_task import ChunkTask, IncompleteError
from services.inference.cleanup import CleanupTask
from services.inference.engines import Engines
from services.inference.finalise import FinaliseTask
from services.inference.held import HeldLease
from services.inference.link import LeaseVoidError, SchedulerLink
from services.inference.releases import IN_ORDER, Release, release_for
from services.inference.residency import Wishes
from services.inference.resident import EngineUnavailableError, WeightsChangedError
from services.inference.settings import InferenceSettings
from services.inference.store_link import StoreLink
from services.inference.trouble import Trouble
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2 as pb

__all__ = ["Worker", "new_worker_id"]

log = telemetry.logger(__name__)
tracer = telemetry.tracer(__name__)

_POLL_SECONDS = 20.0
# What a cancel stops has two seconds: half of one to hear of it, the rest to commit what had finished.
_EXTEND_SECONDS = 0.5
_AWAY_PAUSE_SECONDS = 0.5
_EXPECTED = (
    LeaseVoidError,
    WeightsChangedError,
    TidemillError,
    EngineUnavailableError,
    EngineFailedError,
    IncompleteError,
)


def new_worker_id() -> str:
    """Unique to this start of the process."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Worker:
    """Runs until `drain`; `run` returns when the last lease has ended."""

    def __init__(
        self, settings: InferenceSettings, engines: Engines, link: SchedulerLink, store: StoreLink, store_uri: str
    ) -> None:
        self._settings = settings
        self._engines = engines
        self._link = link
        self._store = store
        self._store_uri = store_uri
        self._backlog = Backlog(settings.backlog_bytes)
        self._held: dict[tuple[str, int], HeldLease] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._draining = asyncio.Event()

    @property
    def leases(self) -> int:
        """Number of leases worked on."""
        return len(self._held)

    def drain(self) -> None:
        """Take no more leases, stop those in hand and give them back."""
        self._draining.set()
        for held in self._held.values():
            held.stopping.set()

    async def run(self) -> None:
        """Lease and work until drained."""
        extending = asyncio.create_task(self._extend_forever())
        leasing = asyncio.create_task(self._lease_forever())
        draining = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait({draining, leasing, extending}, return_when=asyncio.FIRST_COMPLETED)
            for loop in (leasing, extending):
                if loop.done():
                    loop.result()  # neither ends by itself: a fault of ours must end the process
            leasing.cancel()
            await asyncio.wait([leasing])
            self.drain()
            await self._finish_tasks()
        finally:
            draining.cancel()
            leasing.cancel()
            extending.cancel()

    async def _finish_tasks(self) -> None:
        """Let the tasks end; those that do not, for instance behind a loading engine, are cut off."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=self._settings.drain_seconds)
        given_back = list(self._held.values())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        await asyncio.gather(*(self._release(held, IN_ORDER) for held in given_back))

    async def _lease_forever(self) -> None:
        trouble = Trouble(log.warning, "no leases from the scheduler")
        while True:
            await self._store.here()
            free = self._settings.slots - len(self._held)
            if free < 1:
                self._freed.clear()
                await self._freed.wait()
                continue
            try:
                leases = await self._link.lease(self._engines.reports(), free, _POLL_SECONDS)
            except TidemillError as error:
                trouble.failed(error=str(error))
                await asyncio.sleep(_AWAY_PAUSE_SECONDS)
                continue
            trouble.over()
            for lease in leases:
                self._start(lease)

    async def _extend_forever(self) -> None:
        trouble = Trouble(log.warning, "leases not extended")
        while True:
            await asyncio.sleep(_EXTEND_SECONDS)
            keys = [held.key for held in self._held.values()]
            try:
                answer = await self._link.extend(keys, self._engines.reports())
            except TidemillError as error:
                trouble.failed(leases=len(keys), error=str(error))
                continue
            trouble.over()
            self._heed(answer)

    def _heed(self, answer: pb.ExtendLeasesResponse) -> None:
        """End what the scheduler takes back: now, or once what has finished is committed."""
        self._engines.wish(Wishes.of(answer.pinned_models, answer.drained_models))
        for key in answer.void:
            if held := self._held.get((key.job, key.fence)):
                log.info("lease void", job=key.job, fence=key.fence)
                held.void.set()
        for key in answer.stopping:
            if (held := self._held.get((key.job, key.fence))) and not held.halted.is_set():
                log.info("lease halted", job=key.job, fence=key.fence)
                held.halted.set()

    def _start(self, lease: pb.Lease) -> None:
        held = HeldLease(lease)
        self._held[held.job, lease.fence] = held
        kind = pb.LeaseKind.Name(lease.kind).removeprefix("LEASE_KIND_").lower()
        metrics.LEASES.labels(kind).inc()
        task = asyncio.create_task(self._work(held, kind))
        self._tasks.add(task)

        def ended(_task: asyncio.Task[None]) -> None:
            metrics.LEASES.labels(kind).dec()
            del self._held[held.job, lease.fence]
            self._tasks.discard(task)
            self._freed.set()

        task.add_done_callback(ended)

    async def _work(self, held: HeldLease, kind: str) -> None:
        context = telemetry.context_from_traceparent(held.lease.spec.traceparent)
        with tracer.start_as_current_span(f"inference.{kind}", context=context) as span:
            span.set_attributes(
                {
                    "tidemill.job": held.job,
                    "tidemill.fence": held.lease.fence,
                    "tidemill.attempt": held.lease.attempt,
                    "tidemill.chunk_start": held.lease.chunk_start,
                    "tidemill.chunk_rows": held.lease.chunk_rows,
                }
            )
            release = await self._outcome(held)
            if release is None:
                return
            if release.failed:
                span.set_status(Status(StatusCode.ERROR, release.message))
            await self._release(held, release)

    async def _outcome(self, held: HeldLease) -> Release | None:
        """Run the lease; None when it ended by itself."""
        try:
            await self._run(held)
        except _EXPECTED as exc:
            if isinstance(exc, TidemillError) and exc.reason is Reason.STORE_FAILED:
                self._store.lost(exc)
            return release_for(held, exc)
        except Exception as exc:  # a fault of ours must not leave the lease hanging
            log.exception("lease failed", job=held.job, fence=held.lease.fence)
            return release_for(held, exc)
        return None

    async def _run(self, held: HeldLease) -> None:
        if held.lease.kind == pb.LEASE_KIND_FINALISE:
            files = self._engines.files(held.model)
            template = files.template_digest if files else ""
            await FinaliseTask(held, self._store, self._link, template).run()
            return
        if held.lease.kind == pb.LEASE_KIND_CLEANUP:
            await CleanupTask(held, self._store, self._link).run()
            return
        task = ChunkTask(
            held=held,
            engines=self._engines,
            store=self._store,
            store_uri=self._store_uri,
            link=self._link,
            call_rows=self._settings.call_rows,
            part_seconds=self._settings.part_seconds,
            backlog=self._backlog,
        )
        await task.run()

    async def _release(self, held: HeldLease, release: Release) -> None:
        log.warning(
            "lease released",
            job=held.job,
            fence=held.lease.fence,
            failed=release.failed,
            message=release.message,
            fatal_reason=release.fatal_reason,
            engine_died=release.engine_died,
        )
        await self._link.release(release.request(held))

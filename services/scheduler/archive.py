"""Questions about jobs, wherever they are: in memory, or in the ledger's archive.

A job goes from memory to the archive and never back, and it is archived before it leaves memory. So memory is asked
first, and the archive only about what is not there.

A row may hold many parts. It is taken apart in a thread of its own: on the event loop it would hold up every other
call, and in the ledger's thread every append. Where the job's record is enough, only that is read.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from services.scheduler import archived
from services.scheduler.archived import ArchivedJob
from services.scheduler.clock import Clock
from services.scheduler.core import jobs, views
from services.scheduler.core.records import Completion, Job, JobState
from services.scheduler.core.state import State
from services.scheduler.engine import Engine, Events, Turn
from services.scheduler.ledger.base import Ledger
from services.scheduler.ledger.keeping import ArchiveRow
from services.scheduler.opened_jobs import OpenedJobs
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2

T = TypeVar("T")


class ArchivedTurn(Turn):
    """A turn about an archived job: nothing about it changes any more."""

    def record(self, events: Events) -> Events:
        """Refuse any event."""
        if events:
            raise TidemillError(Reason.JOB_TERMINAL, "the job has ended and was archived: nothing can change it")
        return events


class Archive:
    """Runs steps on archived jobs as the engine does on those in memory."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._opened = OpenedJobs()

    async def execute(self, name: str, step: Callable[[Turn], T]) -> T:
        """Run `step`, which is about one job, in its turn; on the archived job when memory does not know it."""
        try:
            return await self._engine.execute(step)
        except TidemillError as error:
            if error.reason is not Reason.JOB_NOT_FOUND:
                raise
            found = await self.find(name)
            if found is None:
                raise
            return step(self._turn(await asyncio.to_thread(archived.state_of, found)))

    def _turn(self, state: State) -> ArchivedTurn:
        return ArchivedTurn(state, self._engine.opened.epoch, self._clock.wall_ns())

    async def find(self, name: str) -> ArchivedJob | None:
        """An archived job that was not deleted."""
        blob = await self._blob(name)
        return await self._opened.unpack(blob, name) if blob is not None else None

    async def _record(self, name: str) -> Job | None:
        """As `find`, its record alone."""
        blob = await self._blob(name)
        return await asyncio.to_thread(archived.unpack_record, blob, name) if blob is not None else None

    async def _blob(self, name: str) -> bytes | None:
        state = self._engine.state
        if not state.archivals or state.hidden(name):
            return None
        return await self._engine.on_ledger(lambda ledger: ledger.archived(name))

    async def delete(self, name: str) -> None:
        """Forget an archived job, if it is one."""
        epoch = self._engine.opened.epoch
        await self._engine.on_ledger(lambda ledger: ledger.delete_archived(epoch, name))

    async def find_same_request(self, spec: records_pb2.JobSpec) -> Job | None:
        """The archived job that an earlier call with this request id, or this name, created.

        Raises:
            TidemillError: REQUEST_ID_REUSED when that call asked for something else.
        """
        if not self._engine.state.archivals:
            return None
        name = spec.name
        if spec.request_id:
            request = (spec.tenant, spec.request_id)
            name = await self._engine.on_ledger(lambda ledger: ledger.archived_request(*request)) or name
        found = await self._record(name)
        if found is not None:
            jobs.create_job(archived.state_of(ArchivedJob(found)), spec, self._clock.wall_ns())
        return found

    async def list_jobs(self, tenant: str, states: Sequence[JobState], before: str, limit: int) -> list[Job]:
        """At most `limit` jobs of a tenant, newest first, as `views.list_jobs`, the archived ones among them."""
        found = await self._engine.execute(lambda turn: views.list_jobs(turn.state, tenant, states, before, limit))
        if not self._engine.state.archivals:
            return found
        merged = {job.name: job for job in found}
        gone = [row for row in await self._visible(tenant, states, before, limit) if row.name not in merged]
        records = await asyncio.to_thread(lambda: [archived.unpack_record(row.blob, row.name) for row in gone])
        merged.update((job.name, job) for job in records)
        return [merged[name] for name in sorted(merged, reverse=True)[:limit]]

    async def _visible(self, tenant: str, states: Sequence[JobState], before: str, limit: int) -> list[ArchiveRow]:
        """At most `limit` archived jobs that were not deleted: deleted ones must not make a page look like the last."""
        found: list[ArchiveRow] = []
        while True:
            rows = await self._engine.on_ledger(partial(_list_archived, tenant, states, before, limit))
            found += [row for row in rows if not self._engine.state.hidden(row.name)]
            if len(rows) < limit or len(found) >= limit:
                return found[:limit]
            before = rows[-1].name

    async def list_completions(
        self, tenant: str, after_sequence: int, limit: int
    ) -> tuple[list[tuple[Completion, Job]], int]:
        """A slice of a tenant's completion index, and its end. Entries of jobs that are gone are left out."""
        entries = await self._engine.on_ledger(lambda ledger: ledger.list_completions(tenant, after_sequence, limit))
        names = {entry.job for entry in entries}

        def step(turn: Turn) -> dict[str, Job]:
            known = {name: turn.state.jobs[name] for name in names if name in turn.state.jobs}
            return {name: job for name, job in known.items() if not job.deleted}

        found = await self._engine.execute(step)
        for name in names - found.keys():
            if (gone := await self._record(name)) is not None:
                found[name] = gone
        end = entries[-1].sequence if entries else after_sequence
        return [(entry, found[entry.job]) for entry in entries if entry.job in found], end


def _list_archived(
    tenant: str, states: Sequence[JobState], before: str, limit: int, ledger: Ledger
) -> list[ArchiveRow]:
    return ledger.list_archived(tenant, states, before, limit)

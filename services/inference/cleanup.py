"""Removes files of a job: the whole folder of a deleted job, or what no ledger entry names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.inference.held import HeldLease
from services.inference.link import LeaseVoidError, SchedulerLink
from services.inference.store_link import StoreLink
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.names import parse_job

__all__ = ["CleanupTask", "is_manifest"]

log = telemetry.logger(__name__)
tracer = telemetry.tracer(__name__)

T = TypeVar("T")

# Written, not yet committed: nobody needs that long from one to the other.
_YOUNG_SECONDS = 3600.0


def is_manifest(name: str) -> bool:
    """Whether a file is a manifest of its job: those are named by the job's record, or by nobody and small."""
    parts = name.split("/")[-2:]
    return parts[0] in ("input", "output") and parts[-1].startswith("manifest") and parts[-1].endswith(".json")


@dataclass(frozen=True)
class CleanupTask:
    """What a CLEANUP lease needs. Nothing outside the job's own folder is touched."""

    held: HeldLease
    store: StoreLink
    link: SchedulerLink

    async def run(self) -> None:
        """Remove the files and tell the scheduler how many there were. Repeating it finds fewer, and is OK.

        Raises:
            LeaseVoidError: the lease ended first.
            TidemillError: INVALID_ARGUMENT for a kind that this build does not know.
        """
        kind = ledger_pb2.CleanupKind.Name(self.held.lease.cleanup).removeprefix("CLEANUP_KIND_").lower()
        with tracer.start_as_current_span("inference.cleanup") as span:
            files = await self._remove(parse_job(self.held.job).prefix)
            span.set_attributes({"tidemill.cleanup": kind, "tidemill.files": files})
            await self.link.finish_cleanup(pb.FinishCleanupRequest(lease=self.held.key, files=files), self.held.void)
        log.info("files removed", job=self.held.job, cleanup=kind, files=files)

    async def _remove(self, folder: str) -> int:
        if self.held.lease.cleanup == ledger_pb2.CLEANUP_KIND_PURGE:
            return await self._call(lambda: self.store.store.remove_folder(folder))
        if self.held.lease.cleanup == ledger_pb2.CLEANUP_KIND_ORPHANS:
            orphans = await self._orphans(folder)
            return await self._call(lambda: self.store.store.remove_files(folder, orphans))
        raise TidemillError(
            Reason.INVALID_ARGUMENT, f"this build of the inference service knows no cleanup {self.held.lease.cleanup}"
        )

    async def _call(self, work: Callable[[], T]) -> T:
        # Folders may be large: silence says nothing.
        return await self.store.call(work, self.held.void, silent_seconds=None)

    async def _orphans(self, folder: str) -> Sequence[str]:
        # The files first: what is named in the meantime is in the lists, which come second.
        old = await self._call(lambda: self.store.store.old_files(folder, _YOUNG_SECONDS))
        if not old:
            return []
        named = {segment.key for segment in await self.link.segments(self.held.job, self.held.void)}
        named |= {part.key for part in await self.link.parts(self.held.job, self.held.void)}
        if self.held.ended:
            raise LeaseVoidError("the lease ended")
        # What belongs to a segment carries its name, such as the ids of its rows.
        stems = {_stem(name) for name in named}
        return [name for name in old if _stem(name) not in stems and not is_manifest(name)]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]

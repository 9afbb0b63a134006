"""The object store as leases use it: while it is away they wait, and no new ones are taken."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from services.inference import metrics
from services.inference.checked import CheckedFiles
from services.inference.daemon import in_thread
from services.inference.link import LeaseVoidError
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.store import ObjectStore

__all__ = ["StoreLink"]

log = telemetry.logger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 2.0
_SILENT_SECONDS = 10.0


class StoreLink:
    """Work at the store, repeated until it succeeds. All methods belong to one event loop.

    The store is away while some work waits for it, or after `lost` until it could be written to.

    Attributes:
        store: the store itself.
        checked: the same, for files whose digest is to be checked.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.checked = CheckedFiles(store)
        self._waiting = 0
        self._lost = False
        self._probing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def away(self) -> bool:
        """Whether no new work should be begun."""
        return self._lost or self._waiting > 0

    async def here(self) -> None:
        """Return once the store is not away."""
        while self.away:
            self._changed.clear()
            await self._changed.wait()

    def lost(self, error: TidemillError) -> None:
        """Others could not reach the store: it is away until a probe succeeds."""
        if self._probing is None or self._probing.done():
            self._lost = True
            self._note(error)
            self._probing = asyncio.create_task(self._probe())

    async def call(
        self,
        work: Callable[[], T],
        void: asyncio.Event,
        *,
        silent_seconds: float | None = _SILENT_SECONDS,
        waits: Callable[[TidemillError], None] = lambda _: None,
    ) -> T:
        """What `work` returns, in a thread; it must bear repetition.

        Args:
            void: ends the waiting: the lease is not ours any more.
            silent_seconds: after so long without an answer the store is taken for away; the work goes on. None where
                the work takes long by itself.
            waits: told why, when the work begins to wait for the store.

        Raises:
            LeaseVoidError: the lease ended first.
            TidemillError: other than STORE_FAILED.
        """
        pause, failed = _FIRST_PAUSE_SECONDS, False
        try:
            while True:
                try:
                    return await self._once(work, void, silent_seconds, waits)
                except TidemillError as error:
                    if error.reason is not Reason.STORE_FAILED:
                        raise
                    if not failed:
                        failed = True
                        self._waits(error)
                        waits(error)
                await _unless(void, asyncio.ensure_future(asyncio.sleep(pause)))
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
        finally:
            if failed:
                self._waited()

    async def _once(
        self,
        work: Callable[[], T],
        void: asyncio.Event,
        silent_seconds: float | None,
        waits: Callable[[TidemillError], None],
    ) -> T:
        call = in_thread(work)
        if silent_seconds is None:
            return await _unless(void, call)
        done, _ = await asyncio.wait({call}, timeout=silent_seconds)
        if done:
            return call.result()
        # Not begun again beside a call that hangs: it may hang for good, with its thread.
        silent = TidemillError(Reason.STORE_FAILED, f"the object store did not answer for {silent_seconds:g} s")
        self._waits(silent)
        waits(silent)
        try:
            return await _unless(void, call)
        except LeaseVoidError:
            # Nobody waits for the call any more; that the store answers is still to be shown.
            self.lost(silent)
            raise
        finally:
            self._waited()

    async def _probe(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while self._lost:
            try:
                await in_thread(self.store.probe)
            except Exception as exc:
                if not isinstance(exc, TidemillError):
                    log.exception("probe of the object store failed")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            else:
                self._lost = False
                self._note(None)

    def _waits(self, error: TidemillError) -> None:
        self._waiting += 1
        self._note(error)

    def _waited(self) -> None:
        self._waiting -= 1
        self._note(None)

    def _note(self, error: TidemillError | None) -> None:
        metrics.STORE_AWAY.set(self.away)
        if error is not None:
            log.warning("object store away", error=error.message)
        if not self.away:
            log.info("object store here")
            self._changed.set()


async def _unless(void: asyncio.Event, work: asyncio.Future[T]) -> T:
    """What `work` gives; LeaseVoidError when the lease ends first, and `work` is left to itself."""
    ended = asyncio.ensure_future(void.wait())
    try:
        await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise LeaseVoidError("the lease ended while the object store was away")
        return work.result()
    finally:
        ended.cancel()

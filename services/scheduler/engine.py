"""The single writer: commands of many callers are decided in order and made durable together.

A group of waiting commands is decided against one state, its events are appended with one fsync, and only then do
replies leave. Reads take the same way, so nobody is ever shown what is not durable. When an append fails, the state is
rebuilt from the ledger: what was acknowledged is there, what was not may be.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from services.scheduler import metrics
from services.scheduler.clock import Clock
from services.scheduler.core.apply import apply
from services.scheduler.core.state import State
from services.scheduler.core.times import to_timestamp
from services.scheduler.ledger.base import Ledger, Opened
from services.scheduler.ledger_time import LedgerTime
from services.scheduler.recovery import recover
from services.scheduler.room import Room
from services.scheduler.snapshotting import EVERY_EVENTS, Snapshots
from services.scheduler.threads import CallThread
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

log = telemetry.logger(__name__)

MAX_GROUP = 512
"""Most commands that share one append: bounds how long the first of them waits."""

QUIET_PASSES = 6
"""A call takes about four passes of the event loop from its socket to the queue: after six without one, none comes."""

COLLECTING_PASSES = 60
"""Most passes for which a group waits for more calls, however many come."""

T = TypeVar("T")
Events = list[ledger_pb2.LedgerEvent]


@dataclass(slots=True)
class Turn:
    """What a command sees and does: the state with everything decided before it, and the events that it adds."""

    state: State
    epoch: int
    now_ns: int
    events: Events = field(default_factory=Events)
    refusal: TidemillError | None = None

    def record(self, events: Events) -> Events:
        """Number, time and apply `events`, in this order; they become durable with the group.

        Raises:
            TidemillError: LEDGER_FULL.
        """
        if events and self.refusal is not None:
            raise self.refusal.with_traceback(None)
        for event in events:
            event.sequence = self.state.sequence + 1
            event.time.CopyFrom(to_timestamp(max(self.now_ns, self.state.time_ns)))
            event.epoch = self.epoch
            apply(self.state, event)
            self.events.append(event)
        return events


@dataclass(frozen=True, slots=True)
class Takeover:
    """A ledger that was taken over before the engine starts, and the state up to some event of it."""

    opened: Opened
    state: State


@dataclass(slots=True)
class _Command(Generic[T]):
    step: Callable[[Turn], T]
    reply: "asyncio.Future[T]"


class Engine:
    """Owns the state and the ledger; start it, call `execute`, close it."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        owner: str,
        on_durable: Callable[[State, Events], None] | None = None,
        barred: Callable[[], TidemillError | None] | None = None,
        *,
        snapshot_events: int = EVERY_EVENTS,
    ) -> None:
        """`on_durable` is called with the events of each group after their append, and with none after a rebuild.

        `barred` says why nothing may be answered now; it is asked before a group is decided and before it is answered.
        """
        self._ledger = ledger
        self._clock = clock
        self.time = LedgerTime(clock)
        self._owner = owner
        self._on_durable = on_durable or (lambda _state, _events: None)
        self._barred = barred or (lambda: None)
        self._thread = CallThread("ledger")
        self._snapshots = Snapshots(ledger, self._thread.call, snapshot_events)
        self._durable_sequence = 0
        self._queue: asyncio.Queue[_Command[Any]] = asyncio.Queue()
        self._state: State | None = None
        self._opened: Opened | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._failure: TidemillError | None = None
        self._room = Room(lambda: self._thread.call(ledger.probe, self.opened.epoch), clock.monotonic)
        self.stopped = asyncio.Event()

    async def start(self, takeover: Takeover | None = None) -> Opened:
        """Take the ledger over, unless that was done, and rebuild the state from it.

        Raises:
            TidemillError: LEDGER_LOCKED or LEDGER_CORRUPT.
        """
        self._opened = takeover.opened if takeover else await self._thread.call(self._ledger.open, self._owner)
        await self._rebuild(takeover.state if takeover else None)
        await self._snapshots.begin()
        self._loop_task = asyncio.create_task(self._run(), name="scheduler-engine")
        return self._opened

    async def halt(self) -> None:
        """Finish the group in progress and write no more events."""
        self.stopped.set()
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.wait([self._loop_task])
        self._refuse_waiting(TidemillError(Reason.UNAVAILABLE, "the scheduler is shutting down", retry_after=1.0))

    async def close(self) -> None:
        """Halt, save the state and let go of the ledger."""
        await self.halt()
        if self._opened is not None:
            await self._snapshots.close(self._durable_state(), self._opened.epoch)
        await self._thread.call(self._ledger.close)
        self._thread.shutdown()

    def _durable_state(self) -> State | None:
        """The state, unless something in it may not be durable."""
        state = self._state
        return state if state is not None and state.sequence == self._durable_sequence else None

    @property
    def opened(self) -> Opened:
        """The ledger as it was taken over."""
        if self._opened is None:
            raise TidemillError(Reason.UNAVAILABLE, "the scheduler is starting", retry_after=1.0)
        return self._opened

    @property
    def failure(self) -> TidemillError | None:
        """Why the engine stopped for good, or what keeps it from rebuilding its state."""
        return self._failure

    @property
    def state(self) -> State:
        """The state, with decisions that may not be durable yet: fit for hints, not for replies."""
        if self._state is None:
            raise self._failure or TidemillError(Reason.UNAVAILABLE, "the scheduler is starting", retry_after=1.0)
        return self._state

    def peek(self) -> State | None:
        """As `state`, or None while there is none."""
        return self._state

    async def execute(self, step: Callable[[Turn], T]) -> T:
        """Run `step` in its turn; returns or raises what it did, once that is durable.

        A step either raises TidemillError or records events, never both.
        """
        return await self._submit(step)

    async def on_ledger(self, call: Callable[[Ledger], T]) -> T:
        """Run `call`, which blocks, in the ledger's thread: it sees what is durable, whatever the state says."""
        return await self._thread.call(call, self._ledger)

    def post(self, step: Callable[[Turn], object]) -> None:
        """Run `step` in its turn for its effect only."""
        self._submit(step).add_done_callback(_note_failure)

    def _submit(self, step: Callable[[Turn], T]) -> "asyncio.Future[T]":
        if self.stopped.is_set():
            raise self._failure or TidemillError(Reason.UNAVAILABLE, "the scheduler has stopped", retry_after=1.0)
        command = _Command(step, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(command)
        return command.reply

    async def _run(self) -> None:
        while not self.stopped.is_set():
            group = [await self._queue.get()]
            await self._collect()
            while not self._queue.empty() and len(group) < MAX_GROUP:
                group.append(self._queue.get_nowait())
            await self._serve(group)

    async def _collect(self) -> None:
        """Let calls that are on their way in join the group: a write and an fsync cost far more than these passes."""
        quiet = 0
        for _ in range(COLLECTING_PASSES):
            waiting = self._queue.qsize()
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._queue.qsize() == waiting else 0
            if quiet == QUIET_PASSES:
                return

    async def _serve(self, group: list[_Command[Any]]) -> None:
        """Decide a group, append its events, reply."""
        if barred := self._barred():
            _refuse(group, barred)
            return
        try:
            if self._state is None:
                await self._rebuild()
            if await self._room.found_again():
                # Steps that were refused may have forgotten what they had planned.
                self._on_durable(self.state, [])
            turn = Turn(self.state, self.opened.epoch, self._clock.wall_ns(), refusal=self._room.refusal)
            turn.state.pass_time(self.time.now_ns(turn.state.time_ns))
            before = turn.state.sequence
            replies = [_decide(command, turn) for command in group if not command.reply.done()]
            if turn.events:
                await self._append(before, turn.events)
                self._on_durable(turn.state, turn.events)
                self._snapshots.note(turn.state, self.opened.epoch)
        except asyncio.CancelledError:
            _refuse(group, TidemillError(Reason.UNAVAILABLE, "the scheduler is shutting down", retry_after=1.0))
            raise
        except TidemillError as error:
            await self._fail(group, error)
        except Exception as bug:
            # A bug in one command must not end the loop that serves all others.
            log.exception("a command broke the state", exc_info=bug)
            await self._fail(group, TidemillError(Reason.INTERNAL, f"internal error ({type(bug).__name__})"))
        else:
            if barred := self._barred():
                _refuse(group, barred)
            for reply in replies:
                reply()

    async def _append(self, expected_sequence: int, events: Events) -> None:
        started = time.perf_counter()
        await self._thread.call(self._ledger.append, self.opened.epoch, expected_sequence, events)
        self._durable_sequence = expected_sequence + len(events)
        metrics.APPEND_SECONDS.observe(time.perf_counter() - started)
        metrics.GROUP_EVENTS.observe(len(events))

    async def _fail(self, group: list[_Command[Any]], error: TidemillError) -> None:
        """Nothing of the group is known to be durable: say so, and start over from the ledger."""
        log.error("group failed", reason=error.reason, message=error.message, commands=len(group))
        self._state = None
        self._failure = error
        self._room.note(error)
        if error.reason is Reason.LEDGER_FENCED:
            self.stopped.set()
            self._refuse_waiting(error)
        else:
            await self._try_rebuild()
        _refuse(group, error)

    async def _try_rebuild(self) -> None:
        try:
            await self._rebuild()
        except TidemillError as error:
            log.error("the state could not be rebuilt", reason=error.reason, message=error.message)
            self._failure = error

    async def _rebuild(self, begun: State | None = None) -> None:
        state = await self._thread.call(recover, self._ledger, self.opened.epoch, begun)
        self._state = state
        self._durable_sequence = state.sequence
        self._failure = None
        self._on_durable(state, [])

    def _refuse_waiting(self, error: TidemillError) -> None:
        waiting: list[_Command[Any]] = []
        while not self._queue.empty():
            waiting.append(self._queue.get_nowait())
        _refuse(waiting, error)


def _decide(command: _Command[Any], turn: Turn) -> Callable[[], None]:
    """Run one command; returns what delivers its reply."""
    recorded = len(turn.events)
    try:
        result = command.step(turn)
    except TidemillError as error:
        return lambda failed=error: _raise_in(command.reply, failed)
    except Exception as bug:
        if len(turn.events) != recorded:
            raise
        # It changed nothing, so it fails alone: the others of its group have done nothing wrong.
        log.exception("a command failed", exc_info=bug)
        broken = TidemillError(Reason.INTERNAL, f"internal error ({type(bug).__name__})")
        return lambda: _raise_in(command.reply, broken)
    return lambda: None if command.reply.done() else command.reply.set_result(result)


def _raise_in(reply: "asyncio.Future[Any]", error: TidemillError) -> None:
    if not reply.done():
        reply.set_exception(error)


def _note_failure(reply: "asyncio.Future[Any]") -> None:
    if not reply.cancelled() and (error := reply.exception()):
        log.info("a posted command was refused", error=str(error))


def _refuse(group: list[_Command[Any]], error: TidemillError) -> None:
    for command in group:
        _raise_in(command.reply, error)

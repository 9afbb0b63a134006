"""Engines in memory, and what a worker knows of the model that they serve."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.inference.busy import BusyMeter
from services.inference.gate import Gate
from services.inference.identity import Record
from services.inference.models import ModelFiles
from tidemill.v1 import model_service_pb2

__all__ = ["Engine", "EngineUnavailableError", "ModelSlot", "WeightsChangedError"]


_MAX_PAUSE_SECONDS = 1200.0


class EngineUnavailableError(Exception):
    """No engine answers for the model now; the message is the engine's own."""


class WeightsChangedError(Exception):
    """The weights here are not those that were loaded or asked for: answers would not be of one model."""


@dataclass
class Engine:
    """An engine in memory, one replica of its model.

    Attributes:
        users: leases that hold it.
        dead: it was found dead.
        node_id: Ray's id of the node it is on, hex.
        node_died: it died with its node, which is no row's fault; not known before `judged` is set.
        group: its placement group, which ends with it; None where it needs none.
        gpus: GPUs that it has to itself.
        coming_bytes: memory that it has yet to take while it loads; 0 once loaded.
        note: what an operator should know of how it was loaded.
        load_seconds: what its load took.
        record: set once its record is in the store.
    """

    actor: Any
    actor_name: str
    files: ModelFiles
    build: str
    users: int = 0
    dead: bool = False
    record: Record | None = None
    node_id: str = ""
    node_died: bool = False
    judged: asyncio.Event = field(default_factory=asyncio.Event)
    group: Any = None
    gpus: int = 0
    coming_bytes: int = 0
    note: str = ""
    load_seconds: float = 0.0
    busy: BusyMeter = field(default_factory=BusyMeter)
    last_used: float = field(default_factory=time.monotonic)

    @property
    def actor_id(self) -> str:
        """Ray's id of the actor, hex."""
        return self.actor._actor_id.hex()


@dataclass
class ModelSlot:
    """What is known of a model, and its engines.

    Attributes:
        engines: its replicas in memory, those that were found dead and are being ended among them.
        load_seconds: what the last load took; 0 before the first.
        deaths: deaths since the last answer: under a chunk that was alone (True), or under others (False).
        died: deaths in all.
        waiting: leases that wait for an engine.
        failures: loads that failed in a row, or deaths that made it FAILED.
        given_up: told from a model that is tried again after a pause: how its folder looked, and how to look again.
        growing: another replica is being loaded.
        spare_engines: further engines of it that find room.
        grow_at: when another replica may be tried, on the monotonic clock.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    gate: Gate = field(default_factory=Gate)
    state: Any = model_service_pb2.MODEL_STATE_COLD
    message: str = ""
    files: ModelFiles | None = None
    engines: list[Engine] = field(default_factory=list[Engine])
    load_seconds: float = 0.0
    retry_at: float = 0.0
    pause_seconds: float = 0.0
    failures: int = 0
    given_up: tuple[Any, Callable[[], Any]] | None = None
    deaths: Counter[bool] = field(default_factory=Counter[bool])
    died: int = 0
    waiting: int = 0
    growing: bool = False
    spare_engines: int = 0
    grow_at: float = 0.0

    @property
    def live(self) -> list[Engine]:
        """Replicas that answer as far as is known."""
        return [engine for engine in self.engines if not engine.dead]

    @property
    def least_busy(self) -> Engine | None:
        """The live replica with the fewest chunks; among equals, the one that was used longest ago."""
        return min(self.live, key=lambda engine: (engine.users, engine.last_used), default=None)

    @property
    def spare(self) -> list[Engine]:
        """Live replicas that no lease holds; none while a lease waits for one."""
        return [] if self.waiting else [engine for engine in self.live if not engine.users]

    @property
    def idle(self) -> bool:
        """It has engines, and no lease holds one or is about to."""
        return bool(self.live) and self.spare == self.live

    @property
    def quiet(self) -> bool:
        """No chunk is in, or on its way in."""
        return not self.gate.inside and not self.gate.waiting

    @property
    def idle_seconds(self) -> float:
        """Since when no chunk was at its engines."""
        return time.monotonic() - max((engine.last_used for engine in self.live), default=0.0)

    def loaded(self, engine: Engine) -> None:
        """The engine came up."""
        self.state, self.message, self.load_seconds = (
            model_service_pb2.MODEL_STATE_LOADED,
            engine.note,
            engine.load_seconds,
        )
        self.pause_seconds, self.failures = 0.0, 0

    def settle(self) -> None:
        """COLD when the last engine is gone."""
        if not self.live and self.state == model_service_pb2.MODEL_STATE_LOADED:
            self.state = model_service_pb2.MODEL_STATE_COLD

    def fail(self, message: str, pause_seconds: float, attempts: int, stamp: Callable[[], Any]) -> None:
        """FAILED, for a pause that doubles each time; after so many `attempts` until the folder looks otherwise.

        Args:
            stamp: how the model's folder looks now.
        """
        self.deaths.clear()
        self.state, self.message = model_service_pb2.MODEL_STATE_FAILED, message
        self.failures += 1
        self.pause_seconds = min(max(pause_seconds, 2 * self.pause_seconds), _MAX_PAUSE_SECONDS)
        self.retry_at = time.monotonic() + self.pause_seconds
        if self.failures >= attempts:
            self.retry_at, self.given_up = math.inf, (stamp(), stamp)
            self.message += (
                f" ({self.failures} times in a row: it is not tried again before its folder changes, or an operator "
                "drains and undrains it or pins it)"
            )

    def try_again(self) -> None:
        """An operator's word, or another folder: what failed counts no more."""
        if self.state == model_service_pb2.MODEL_STATE_FAILED:
            self.state, self.failures, self.pause_seconds, self.given_up = (
                model_service_pb2.MODEL_STATE_COLD,
                0,
                0.0,
                None,
            )

    def end_pause(self) -> None:
        """A model that failed may be tried again after its pause, or once its folder has changed: no reload loop."""
        if self.state != model_service_pb2.MODEL_STATE_FAILED:
            return
        if self.given_up:
            before, stamp = self.given_up
            if stamp() != before:
                self.try_again()
        elif time.monotonic() >= self.retry_at:
            self.state = model_service_pb2.MODEL_STATE_COLD

"""An engine in memory, and what a worker knows of the model that it serves."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from services.inference.busy import BusyMeter
from services.inference.gate import Gate
from services.inference.identity import Record
from services.inference.models import ModelFiles
from tidemill.v1 import model_service_pb2

__all__ = ["Engine", "EngineUnavailableError", "ModelSlot", "WeightsChangedError"]


class EngineUnavailableError(Exception):
    """No engine answers for the model now; the message is the engine's own."""


class WeightsChangedError(Exception):
    """The weights here are not those that were loaded or asked for: answers would not be of one model."""


@dataclass
class Engine:
    """An engine in memory. `users` counts the leases that hold it; `dead` is set when it was found dead; `record` when
    its record is in the store."""

    actor: Any
    actor_name: str
    files: ModelFiles
    build: str
    users: int = 0
    dead: bool = False
    record: Record | None = None
    busy: BusyMeter = field(default_factory=BusyMeter)
    last_used: float = field(default_factory=time.monotonic)

    @property
    def actor_id(self) -> str:
        """Ray's id of the actor, hex."""
        return self.actor._actor_id.hex()


@dataclass
class ModelSlot:
    """What is known of a model, and its engine.

    Attributes:
        load_seconds: what the last load took; 0 before the first.
        deaths: deaths since the last answer: under a chunk that was alone (True), or under others (False).
        waiting: leases that wait for the engine to load.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    gate: Gate = field(default_factory=Gate)
    state: Any = model_service_pb2.MODEL_STATE_COLD
    message: str = ""
    files: ModelFiles | None = None
    engine: Engine | None = None
    load_seconds: float = 0.0
    retry_at: float = 0.0
    pause_seconds: float = 0.0
    deaths: Counter[bool] = field(default_factory=Counter[bool])
    waiting: int = 0

    @property
    def idle(self) -> bool:
        """It has an engine that no lease holds or is about to hold."""
        return self.engine is not None and not self.engine.users and not self.waiting

    @property
    def quiet(self) -> bool:
        """No chunk is in, or on its way in."""
        return not self.gate.inside and not self.gate.waiting

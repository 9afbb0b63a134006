"""What a worker asks for, what it is given, and who chooses."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.scheduler.core.limits import Limits
from services.scheduler.core.records import LeaseKind
from services.scheduler.core.state import State
from tidemill.v1 import model_service_pb2

RESIDENT = frozenset({model_service_pb2.MODEL_STATE_LOADED, model_service_pb2.MODEL_STATE_LOADING})


@dataclass(frozen=True, slots=True)
class Tightness:
    """Until when promised work fills the time (see `tightness`); zeros where there is room.

    Attributes:
        until_ns: firm jobs due by then are urgent.
        strained_until_ns: those due by then cannot wait for the jobs of a loaded model either.
    """

    until_ns: int = 0
    strained_until_ns: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """A worker that asks for work.

    Attributes:
        worker_id: the worker.
        models: state of each model that it can serve.
        load_seconds: what loading took, by model, where it was measured.
        engines: live workers that can serve each model; 1 where it is not given.
        tightness: until when promised work fills the time.
    """

    worker_id: str
    models: "Mapping[str, model_service_pb2.ModelState.ValueType]"
    load_seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    engines: Mapping[str, int] = field(default_factory=dict[str, int])
    tightness: Tightness = field(default_factory=Tightness)

    def is_resident(self, model: str) -> bool:
        """Whether the worker has the model loaded or is about to."""
        return self.models.get(model) in RESIDENT

    def taking(self, model: str) -> "Offer":
        """The offer after the worker was given a chunk of the model."""
        if self.is_resident(model):
            return self
        return replace(self, models={**self.models, model: model_service_pb2.MODEL_STATE_LOADING})


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work to lease."""

    kind: LeaseKind
    job: str
    chunk_start: int = 0
    chunk_rows: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """Everything that a choice rests on."""

    state: State
    offer: Offer
    limits: Limits
    now_ns: int

    def load_seconds(self, model: str) -> float:
        """What loading the model costs this worker; 0 where it is resident."""
        if self.offer.is_resident(model):
            return 0.0
        return self.offer.load_seconds.get(model) or self.limits.load_seconds

    def engines(self, model: str) -> int:
        """Live workers that can serve the model."""
        return max(1, self.offer.engines.get(model, 1))


class Policy(Protocol):
    """Who runs next."""

    def choose(self, state: State, offer: Offer, limits: Limits, now_ns: int) -> Work | None:
        """The work that is due next to this worker; None when there is none that it may have.

        Args:
            state: not changed.
            offer: the worker, its models and what it knows of their loading.
            limits: caps and parameters.
            now_ns: wall time.
        """
        ...

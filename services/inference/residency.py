"""Which engines stay in memory: the scheduler's wishes, and who makes room for whom."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.inference.models import ModelUnusableError
from services.inference.resident import Engine, ModelSlot
from tidemill.v1 import model_service_pb2

__all__ = ["NoRoomError", "Wishes", "to_evict"]


class NoRoomError(ModelUnusableError):
    """No node has room for the engine, with nothing there that could make room."""


@dataclass(frozen=True)
class Wishes:
    """What the scheduler wants of this worker's models.

    Attributes:
        pinned: models to load and keep loaded.
        drained: models to unload once their chunks are done; stronger than a pin.
    """

    pinned: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()

    @classmethod
    def of(cls, pinned: Iterable[str], drained: Iterable[str]) -> "Wishes":
        """Wishes as they come over the wire."""
        gone = frozenset(drained)
        return cls(frozenset(pinned) - gone, gone)

    def asked_anew(self, before: "Wishes") -> frozenset[str]:
        """Models that an operator pinned, or whose drain ended, since then."""
        return (self.pinned - before.pinned) | (before.drained - self.drained)

    def to_load(self, slots: Mapping[str, ModelSlot]) -> list[str]:
        """Pinned models that nobody is loading and that did not just fail."""
        cold = model_service_pb2.MODEL_STATE_COLD
        return [model for model in sorted(self.pinned & slots.keys()) if slots[model].state == cold]

    def to_unload(self, slots: Mapping[str, ModelSlot]) -> list[str]:
        """Drained models in memory without a chunk."""
        return [model for model in sorted(self.drained & slots.keys()) if slots[model].idle and slots[model].quiet]


def to_evict(slots: Mapping[str, ModelSlot], wishes: Wishes) -> tuple[str, Engine] | None:
    """The engine to unload for another: idle, not pinned, the least recently used. None: wait until one is idle.

    Raises:
        ModelUnusableError: waiting would not help.
    """
    resident = {model: slot for model, slot in slots.items() if slot.engines}
    if not resident:
        raise NoRoomError(
            "no machine has enough free memory (or GPUs, or logical CPUs) for the model, with no engine loaded: lower "
            "TIDEMILL_INFERENCE_KV_CACHE_BYTES, or give it a bigger machine"
        )
    movable = {model: slot for model, slot in resident.items() if model not in wishes.pinned}
    if not movable:
        raise ModelUnusableError(
            f"there is no room beside the pinned models {', '.join(sorted(resident))}: unpin one, raise "
            "TIDEMILL_INFERENCE_MAX_ENGINES or give the machine more memory"
        )
    # A model whose lock is taken is being loaded or ended, maybe by one who waits for this very place.
    spare = [(model, engine) for model, slot in movable.items() if not slot.lock.locked() for engine in slot.spare]
    return min(spare, key=lambda item: item[1].last_used, default=None)

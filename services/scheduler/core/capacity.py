"""What the live workers can do, as their reports say; the core is given it, because it is in no ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.scheduler.core.limits import LOAD_SECONDS


@dataclass(frozen=True, slots=True)
class Capacity:
    """The engines there are.

    Attributes:
        engines: live workers; each keeps one model busy at a time.
        by_model: live workers that offer the model and did not fail to load it.
        loaded: those that have it in memory.
        load_seconds: measured time of its last load.
        spare: further engines of it that workers have room for.
        default_load_seconds: the same of a model that no worker has loaded yet.
        digests: SHA-256 (hex) of its weights where all workers agree; absent where they do not, or do not know.
    """

    engines: int = 0
    by_model: Mapping[str, int] = field(default_factory=dict[str, int])
    loaded: Mapping[str, int] = field(default_factory=dict[str, int])
    load_seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    default_load_seconds: float = LOAD_SECONDS
    spare: Mapping[str, int] = field(default_factory=dict[str, int])

    def load_time(self, model: str) -> float:
        """Seconds to load the model."""
        return self.load_seconds.get(model) or self.default_load_seconds

    def first_load(self, model: str) -> float:
        """Seconds until the model is loaded somewhere; 0 where it is."""
        return 0.0 if self.loaded.get(model) else self.load_time(model)

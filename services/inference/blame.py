"""Tells a dead engine from a failed task, by what Ray raises."""

from services.inference.source import InputUnreadableError
from services.inference.words import last_line

__all__ = [
    "EngineFailedError",
    "NodeLostError",
    "causes",
    "engine_died",
    "input_error",
    "last_words",
    "ray_errors",
    "unreachable",
]


_ADVICE = ("Failed to apply UDF transform", "To change retry attempts")


class EngineFailedError(Exception):
    """The engine failed under the chunk; its words. The rows without a result must run again.

    Attributes:
        died: the engine died with rows of the chunk inside.
    """

    def __init__(self, message: str, *, died: bool = False) -> None:
        super().__init__(message)
        self.died = died


class NodeLostError(EngineFailedError):
    """The engine's node died: no row is to blame, and the chunk may run again at once."""


def ray_errors() -> tuple[type[BaseException], ...]:
    """What Ray raises when a dataset or an actor fails."""
    from ray.exceptions import RayError

    return (RayError,)


def engine_died(exc: BaseException, actor_id: str | None) -> bool:
    """Whether the error means that the engine in this actor is dead.

    Args:
        actor_id: the engine's actor, hex; None where Ray Data keeps the engines and any of its actors may be meant.
    """
    from ray.exceptions import ActorDiedError

    from services.inference.actor import EngineLostError

    return any(
        isinstance(cause, EngineLostError)
        or (isinstance(cause, ActorDiedError) and (actor_id is None or cause.actor_id in (None, actor_id)))
        for cause in causes(exc)
    )


def unreachable(exc: BaseException) -> bool:
    """Whether an actor did not answer, which may or may not be its death."""
    from ray.exceptions import RayActorError

    from services.inference.chunk import EngineAwayError

    # Ray Data may pass on an error of its tasks as text alone.
    away = EngineAwayError.__name__
    return any(isinstance(cause, RayActorError | EngineAwayError) or away in str(cause) for cause in causes(exc))


def input_error(exc: BaseException) -> InputUnreadableError | None:
    """The unreadable input that the error comes from, if it does."""
    return next((cause for cause in causes(exc) if isinstance(cause, InputUnreadableError)), None)


def causes(exc: BaseException | None) -> list[BaseException]:
    """The error, what Ray wrapped in it, and what those came from."""
    found: list[BaseException] = []
    pending = [exc]
    while pending:
        item = pending.pop()
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            pending += [getattr(item, "cause", None), item.__cause__]
    return found


def last_words(exc: BaseException) -> str:
    """The last line of the deepest cause, without Ray Data's advice to whoever writes datasets."""
    return last_line(causes(exc)[-1], without=_ADVICE)

"""Refused frames where a call has no other answer: as errors."""

from services.gateway import metrics
from services.gateway.frames import Refusal
from tidemill.errors import FieldViolation, TidemillError
from tidemill.v1 import row_pb2


def raise_refusal(outcome: object, **metadata: object) -> None:
    """Raise what a frame was refused for, if it was; `metadata` go with the refusal."""
    if not isinstance(outcome, Refusal):
        return
    metrics.FRAMES_REFUSED.labels(outcome.reason).inc()
    violations = [FieldViolation(_path(error), f"{error.code}: {error.message}") for error in outcome.row_errors]
    if outcome.row_errors:
        metadata["row"] = outcome.row_errors[0].index
    raise TidemillError(outcome.reason, outcome.message, metadata=metadata, violations=violations)


def _path(error: row_pb2.RowError) -> str:
    return f"rows[{error.index}].{error.field}".rstrip(".")

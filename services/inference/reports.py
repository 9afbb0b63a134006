"""What the scheduler is told of a model."""

from typing import Any

from services.inference.resident import ModelSlot
from tidemill.internal.v1 import records_pb2
from tidemill.v1 import model_service_pb2

__all__ = ["model_health", "model_report"]


_MOST_SPARE = 1000


def model_report(model: str, slot: ModelSlot, build: str) -> records_pb2.ModelReport:
    """The report of a model."""
    report = records_pb2.ModelReport(
        model=model, state=slot.state, message=slot.message, engine_build=build, load_seconds=slot.load_seconds
    )
    report.replicas, report.engine_deaths = len(slot.live), slot.died
    report.spare_engines = min(slot.spare_engines, _MOST_SPARE)
    if files := slot.files:
        report.max_model_len = files.window
        report.digest = files.digest
        report.tokenizer_key = files.tokenizer_key
        report.tokenizer_sha256 = files.tokenizer_sha256
        report.has_chat_template = bool(files.template)
        report.tasks.extend(files.tasks)
    return report


def model_health(slot: ModelSlot, wanted: int) -> dict[str, Any]:
    """What `/readyz` says of a model.

    Args:
        wanted: replicas that it should have while it is in memory.
    """
    return {
        "state": model_service_pb2.ModelState.Name(slot.state).removeprefix("MODEL_STATE_"),
        "message": slot.message,
        "replicas": len(slot.live),
        "replicas_wanted": wanted,
        "nodes": sorted({engine.node_id for engine in slot.live}),
        "engine_deaths": slot.died,
        "load_seconds": round(slot.load_seconds, 3),
    }

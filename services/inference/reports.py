"""What the scheduler is told of a model."""

from services.inference.resident import ModelSlot
from tidemill.internal.v1 import records_pb2

__all__ = ["model_report"]


def model_report(model: str, slot: ModelSlot, build: str) -> records_pb2.ModelReport:
    """The report of a model."""
    report = records_pb2.ModelReport(
        model=model, state=slot.state, message=slot.message, engine_build=build, load_seconds=slot.load_seconds
    )
    if files := slot.files:
        report.max_model_len = files.window
        report.digest = files.digest
        report.tokenizer_key = files.tokenizer_key
        report.tokenizer_sha256 = files.tokenizer_sha256
        report.has_chat_template = bool(files.template)
        report.tasks.extend(files.tasks)
    return report

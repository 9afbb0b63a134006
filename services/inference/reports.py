"""What the scheduler is told of a model."""

from typing import Any

from services.inference.models import ModelFiles
from tidemill.internal.v1 import records_pb2

__all__ = ["model_report"]


def model_report(model: str, state: Any, message: str, files: ModelFiles | None, build: str) -> records_pb2.ModelReport:
    """The report of a model; `files` is None while nothing is known of it."""
    report = records_pb2.ModelReport(model=model, state=state, message=message, engine_build=build)
    if files:
        report.max_model_len = files.window
        report.digest = files.digest
        report.tokenizer_key = files.tokenizer_key
        report.tokenizer_sha256 = files.tokenizer_sha256
        report.has_chat_template = bool(files.template)
    return report

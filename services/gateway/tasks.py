"""What a model can be asked for."""

from tidemill.internal.v1 import records_pb2
from tidemill.v1 import model_service_pb2


def tasks_of(report: records_pb2.ModelReport) -> "frozenset[model_service_pb2.Task.ValueType]":
    """The tasks of a model; generation alone where its worker, of an earlier build, names none."""
    return frozenset(report.tasks) or frozenset({model_service_pb2.TASK_GENERATE})

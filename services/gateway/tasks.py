"""What a model can be asked for."""

from collections.abc import Iterable

from tidemill.internal.v1 import records_pb2
from tidemill.v1 import model_service_pb2

GENERATION: "frozenset[model_service_pb2.Task.ValueType]" = frozenset({model_service_pb2.TASK_GENERATE})


def tasks_of(report: records_pb2.ModelReport) -> "frozenset[model_service_pb2.Task.ValueType]":
    """The tasks of a model; generation alone where its worker, of an earlier build, names none."""
    return frozenset(report.tasks) or GENERATION


def task_words(tasks: "Iterable[model_service_pb2.Task.ValueType]") -> str:
    """Tasks as people write them: `embed, score`."""
    known = model_service_pb2.Task.values()
    names = (model_service_pb2.Task.Name(task) for task in sorted(tasks) if task in known)
    return ", ".join(name.removeprefix("TASK_").lower() for name in names)

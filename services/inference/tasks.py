"""What a model can be asked for, read from its files by the rules of vLLM's own choice of runner."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from services.inference.sampling import RowRefusedError
from tidemill.encoding import MODEL_TASKS, Task
from tidemill.errors import RowCode
from tidemill.v1 import model_service_pb2

__all__ = ["GENERATE", "ModelTasks", "TaskUnknownError", "model_tasks", "pooling_window", "task_refusal"]

ModelTasks = tuple["model_service_pb2.Task.ValueType", ...]

GENERATE: ModelTasks = (model_service_pb2.TASK_GENERATE,)
_EMBED: ModelTasks = (model_service_pb2.TASK_EMBED, model_service_pb2.TASK_SCORE)
_CLASSIFY: ModelTasks = (model_service_pb2.TASK_CLASSIFY,)
_SCORE: ModelTasks = (model_service_pb2.TASK_SCORE,)

# The first that an architecture's name ends with counts.
_ENDINGS: tuple[tuple[str, ModelTasks | None], ...] = (
    ("ForCausalLM", GENERATE),
    ("ForConditionalGeneration", GENERATE),
    ("ForTextEncoding", _EMBED),
    ("EmbeddingModel", _EMBED),
    ("ForSequenceClassification", _CLASSIFY),
    ("ForTokenClassification", None),
    ("ForRewardModel", None),
    ("RewardModel", None),
    ("ForMaskedLM", None),
    ("ChatModel", GENERATE),
    ("LMHeadModel", GENERATE),
    ("Model", _EMBED),
)


class TaskUnknownError(Exception):
    """A model for tasks that are not offered here."""


def model_tasks(folder: Path, config: Mapping[str, Any]) -> ModelTasks:
    """At least one task.

    A folder of Sentence Transformers with a pooling layer holds an embedding model, whatever its architecture. A
    sequence classifier with one label scores pairs; with more, it classifies.

    Raises:
        TaskUnknownError: the model labels tokens, is a reward model or the like.
    """
    if _has_pooling_layer(folder):
        return _EMBED
    for architecture in cast("list[str]", config.get("architectures") or []):
        for ending, tasks in _ENDINGS:
            if architecture.endswith(ending):
                if tasks is None:
                    raise TaskUnknownError(
                        f"{architecture} neither generates, embeds, classifies texts nor scores pairs: choose a model "
                        "that does one of these"
                    )
                return _SCORE if tasks is _CLASSIFY and _labels(config) == 1 else tasks
    return GENERATE


def pooling_window(folder: Path, config: Mapping[str, Any], own: int) -> int:
    """Most tokens of a text, from `own`, the number of positions: some models keep positions or length back."""
    if config.get("model_type") in ("roberta", "xlm-roberta"):
        own -= int(config.get("pad_token_id") or 0) + 1
    limit = _json(folder / "sentence_bert_config.json")
    length = limit.get("max_seq_length") if isinstance(limit, dict) else None
    return min(own, length) if isinstance(length, int) else own


def task_refusal(model: str, tasks: ModelTasks, kind: Task) -> RowRefusedError | None:
    """Why a model that can be asked for `tasks` does not answer a row of this kind; None where it does."""
    if MODEL_TASKS[kind] in tasks:
        return None
    return RowRefusedError(
        RowCode.TASK_NOT_SUPPORTED,
        f"{model} does not answer {kind} rows, its tasks are {', '.join(map(model_service_pb2.Task.Name, tasks))}: "
        "choose another model",
    )


def _labels(config: Mapping[str, Any]) -> int:
    names: Any = config.get("id2label")
    return len(names) if names else int(config.get("num_labels") or 2)


def _has_pooling_layer(folder: Path) -> bool:
    modules = _json(folder / "modules.json")
    kinds = [item.get("type", "") for item in modules if isinstance(item, dict)] if isinstance(modules, list) else []
    return any(kind.endswith("Pooling") for kind in kinds)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None

"""What a model can be asked for, from its files."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.inference.tasks import TaskUnknownError, model_tasks, pooling_window
from tidemill.tiny_model import make_tiny
from tidemill.tiny_pooling import PoolingKind, make_tiny_pooling
from tidemill.v1 import model_service_pb2
from tidemill.v1.model_service_pb2 import TASK_CLASSIFY, TASK_EMBED, TASK_GENERATE, TASK_SCORE


def tasks(folder: Path, **config: Any) -> "set[model_service_pb2.Task.ValueType]":
    return set(model_tasks(folder, config))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("embedder", {TASK_EMBED, TASK_SCORE}), ("classifier", {TASK_CLASSIFY}), ("scorer", {TASK_SCORE})],
)
def test_the_tiny_models_say_what_they_do(tmp_path: Path, kind: PoolingKind, expected: set[Any]) -> None:
    make_tiny_pooling(tmp_path, kind)
    assert tasks(tmp_path, **json.loads((tmp_path / "config.json").read_text())) == expected


def test_a_generating_model_generates(tmp_path: Path) -> None:
    make_tiny(tmp_path)
    assert tasks(tmp_path, **json.loads((tmp_path / "config.json").read_text())) == {TASK_GENERATE}


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("Qwen3ForCausalLM", TASK_GENERATE),
        ("LlavaForConditionalGeneration", TASK_GENERATE),
        ("Qwen2Model", TASK_EMBED),
        ("GPT2LMHeadModel", TASK_GENERATE),
        ("XLMRobertaForSequenceClassification", TASK_CLASSIFY),
    ],
)
def test_architectures_have_tasks(tmp_path: Path, architecture: str, expected: Any) -> None:
    assert expected in tasks(tmp_path, architectures=[architecture])


def test_a_pooling_layer_makes_any_architecture_embed(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling"}]')
    assert tasks(tmp_path, architectures=["Qwen3ForCausalLM"]) == {TASK_EMBED, TASK_SCORE}


@pytest.mark.parametrize("architecture", ["BertForTokenClassification", "Qwen2ForRewardModel", "BertForMaskedLM"])
def test_other_models_are_refused_by_name(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(TaskUnknownError, match=architecture):
        model_tasks(tmp_path, {"architectures": [architecture]})


def test_some_models_keep_positions_back(tmp_path: Path) -> None:
    assert pooling_window(tmp_path, {"model_type": "bert"}, 512) == 512
    assert pooling_window(tmp_path, {"model_type": "xlm-roberta", "pad_token_id": 1}, 514) == 512
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    assert pooling_window(tmp_path, {"model_type": "bert"}, 512) == 256

"""Embedding models of other builds than BERT's on the real engine, beside bare vLLM: RoBERTa, whose positions begin
behind the padding token, and a decoder that gives the vector of its last token."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, processors

from services.inference.engine_config import Call, EngineRow
from services.inference.models import Catalog
from services.inference.settings import ModelSource
from tests.inference.engine_host import Bare, Work
from tests.inference.hosted import config, refused, run
from tidemill.encoding import Request
from tidemill.outputs import unpack_vector
from tidemill.tiny_model import byte_tokenizer, write_json
from tidemill.weights import WeightDigests

# vLLM and transformers warn of themselves when they are imported.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

SIZE, WINDOW, PAD = 128, 96, 1
TEXTS = ("The tide comes in.", "The tide goes out.", "a", "été 日本", "x" * (WINDOW - 2))
CLOSE = 2e-6
"""Float32 sums of another batch differ by so much."""
SHAPE: dict[str, Any] = {
    "hidden_size": SIZE,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 259,
    "initializer_range": 0.2,
}


def make_tokenizer(folder: Path, template: str) -> None:
    specials = ("<s>", "</s>", "<pad>")
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    ends = [("<s>", 256), ("</s>", 257)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "eos_token", "pad_token"), specials, strict=True))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})


def make_roberta(folder: Path) -> None:
    import torch
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(0)
    # Positions up to the padding token's are never used.
    shape = RobertaConfig(max_position_embeddings=WINDOW + PAD + 1, pad_token_id=PAD, type_vocab_size=1, **SHAPE)
    RobertaModel(shape, add_pooling_layer=False).save_pretrained(folder)
    make_tokenizer(folder, "<s> $A </s>")


def make_decoder(folder: Path) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = Qwen2Config(max_position_embeddings=WINDOW, num_key_value_heads=1, tie_word_embeddings=True, **SHAPE)
    Qwen2ForCausalLM(shape).save_pretrained(folder)
    make_tokenizer(folder, "$A </s> </s>")
    pooling = {"word_embedding_dimension": SIZE, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling/config.json", pooling)


def embedding(text: str, dimensions: int | None = None) -> Request:
    return Request("embedding", text=text, dimensions=dimensions)


@pytest.mark.parametrize("make", [make_roberta, make_decoder])
def test_vectors_are_those_of_bare_vllm(tmp_path: Path, make: Callable[[Path], None]) -> None:
    model = tmp_path / "model"
    model.mkdir()
    make(model)
    catalog = Catalog([ModelSource("m", str(model))], WeightDigests(tmp_path / "digests.json"), 8192)
    files = catalog.fetch("m")
    assert files.window == WINDOW
    rows = [*(embedding(text) for text in TEXTS), embedding("x" * (WINDOW - 1)), embedding("a", 32)]
    numbered = [EngineRow(index, row) for index, row in enumerate(rows)]
    bare = [Bare("embed", (text,)) for text in TEXTS]
    found = run(Work(config(files.folder, files.window, files.tasks), [(Call("g"), numbered)], bare), tmp_path)
    ours = [found["ours"][0][index] for index in range(len(rows))]
    vectors = [unpack_vector(item.vector) for item in ours[: len(TEXTS)]]
    for own, other in zip(vectors, found["bare"], strict=True):
        assert own == pytest.approx(other, abs=CLOSE)
        assert math.hypot(*own) == pytest.approx(1, abs=1e-5)
    assert len(set(vectors)) == len(TEXTS), "each depends on its text"
    assert [item.prompt_tokens for item in ours[: len(TEXTS)]] == [len(text.encode()) + 2 for text in TEXTS]
    codes = [refused(item)[0] for item in ours[len(TEXTS) :]]
    assert codes == ["PROMPT_TOO_LONG", "PARAMETER_OUT_OF_RANGE"]

"""Small random BERT models for tests and demonstrations of embedding, classification and scoring.

Real format and real engine; the numbers mean nothing, but each depends on every byte of the text.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, processors

from tidemill.tiny_model import byte_tokenizer, safetensors, write_json

__all__ = ["CLASSES", "DIMENSIONS", "PoolingKind", "make_tiny_pooling"]

PoolingKind = Literal["embedder", "classifier", "scorer"]

CLASSES = ("calm", "rough", "stormy")
"""Labels of the classifier."""

DIMENSIONS = (32, 64)
"""Shortened lengths that the embedder supports beside its own 128 (Matryoshka)."""

_HIDDEN, _HEADS, _LAYERS, _INTERMEDIATE, _WINDOW = 128, 2, 2, 256, 512
_CLS, _SEP, _PAD = 256, 257, 258
_SPECIALS = ("[CLS]", "[SEP]", "[PAD]")
_VOCABULARY = 259
_SPREAD = 0.1
_WIDE = 1.0  # of embeddings: small ones would make all texts look alike

Arrays = dict[str, NDArray[np.float32]]


def make_tiny_pooling(path: Path, kind: PoolingKind, seed: int = 0) -> str:
    """Writes the model folder and returns the SHA-256 (hex) of its weight file; equal arguments give equal bytes.

    Args:
        path: folder to create; files of the same names in it are replaced.
        kind: `embedder` (vectors of 128), `classifier` (CLASSES) or `scorer` (a cross-encoder of pairs).
        seed: 0 to 2^63-1.
    """
    path.mkdir(parents=True, exist_ok=True)
    weights = safetensors(_tensors(kind, seed))
    (path / "model.safetensors").write_bytes(weights)
    write_json(path / "config.json", {**_config(), **_head_config(kind)})
    write_json(path / "tokenizer_config.json", _tokenizer_config())
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in _SPECIALS])
    tokenizer.post_processor = _pairs()
    tokenizer.save(str(path / "tokenizer.json"))
    return hashlib.sha256(weights).hexdigest()


def _config() -> dict[str, Any]:
    return {
        "model_type": "bert",
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_size": _HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": _INTERMEDIATE,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": _WINDOW,
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "pad_token_id": _PAD,
        "torch_dtype": "float32",
        "type_vocab_size": 2,
        "vocab_size": _VOCABULARY,
    }


def _head_config(kind: PoolingKind) -> dict[str, Any]:
    if kind == "embedder":
        return {
            "architectures": ["BertModel"],
            "is_matryoshka": True,
            "matryoshka_dimensions": [*DIMENSIONS, _HIDDEN],
        }
    labels = CLASSES if kind == "classifier" else ("relevance",)
    return {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _WINDOW,
        "cls_token": _SPECIALS[0],
        "sep_token": _SPECIALS[1],
        "pad_token": _SPECIALS[2],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }


def _pairs() -> processors.TemplateProcessing:
    """`[CLS] text [SEP]`, and behind it the pair's second text with token type 1."""
    return processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(_SPECIALS[0], _CLS), (_SPECIALS[1], _SEP)],
    )


def _tensors(kind: PoolingKind, seed: int) -> Arrays:
    """The weights by their Hugging Face names, float32."""
    rng = np.random.default_rng(seed)
    prefix = "" if kind == "embedder" else "bert."
    tables = {"word": _VOCABULARY, "position": _WINDOW, "token_type": 2}
    weights: Arrays = {
        f"{prefix}embeddings.{name}_embeddings.weight": _normal(rng, _WIDE, rows, _HIDDEN)
        for name, rows in tables.items()
    }
    weights |= _norm(f"{prefix}embeddings.LayerNorm")
    for index in range(_LAYERS):
        weights |= _layer(rng, f"{prefix}encoder.layer.{index}")
    weights |= _linear(rng, f"{prefix}pooler.dense", _HIDDEN, _HIDDEN)
    if kind != "embedder":
        classes = len(CLASSES) if kind == "classifier" else 1
        weights |= _linear(rng, "classifier", classes, _HIDDEN)
    return weights


def _layer(rng: np.random.Generator, prefix: str) -> Arrays:
    weights: Arrays = {}
    for name in ("query", "key", "value"):
        weights |= _linear(rng, f"{prefix}.attention.self.{name}", _HIDDEN, _HIDDEN)
    weights |= _linear(rng, f"{prefix}.attention.output.dense", _HIDDEN, _HIDDEN)
    weights |= _norm(f"{prefix}.attention.output.LayerNorm")
    weights |= _linear(rng, f"{prefix}.intermediate.dense", _INTERMEDIATE, _HIDDEN)
    weights |= _linear(rng, f"{prefix}.output.dense", _HIDDEN, _INTERMEDIATE)
    return weights | _norm(f"{prefix}.output.LayerNorm")


def _linear(rng: np.random.Generator, prefix: str, rows: int, columns: int, spread: float = _SPREAD) -> Arrays:
    return {
        f"{prefix}.weight": _normal(rng, spread, rows, columns),
        f"{prefix}.bias": np.zeros(rows, np.float32),
    }


def _norm(prefix: str) -> Arrays:
    return {f"{prefix}.weight": np.ones(_HIDDEN, np.float32), f"{prefix}.bias": np.zeros(_HIDDEN, np.float32)}


def _normal(rng: np.random.Generator, spread: float, *shape: int) -> NDArray[np.float32]:
    return (rng.standard_normal(shape) * spread).astype(np.float32)

"""Models with random weights in the shapes of public ones: the speed of the real thing, without a download.

python -m benchmarks.shapes qwen2.5-0.5b FOLDER
"""

import argparse
import contextlib
import json
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.tiny_model import make_tiny

_SEED = 0
_SPREAD = 0.02


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2 model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool


SHAPES = {
    "qwen2.5-0.5b": Shape(896, 4864, 24, 14, 2, 151_936, tied=True),
    "qwen2.5-7b": Shape(3584, 18_944, 28, 28, 4, 152_064, tied=False),
}


@contextlib.contextmanager
def model_folder(model: str) -> Generator[Path]:
    """The folder of a named model, made for the time being, or the one that `model` is."""
    if model != "tiny" and model not in SHAPES:
        yield Path(model)
        return
    with tempfile.TemporaryDirectory(prefix="tidemill-model-") as name:
        folder = Path(name) / model
        if model == "tiny":
            make_tiny(folder)
        else:
            make_shape(model, folder)
        yield folder


def make_shape(name: str, folder: Path) -> None:
    """Write the model in bfloat16. Its tokenizer gives one token a byte and knows a filler for every other id."""
    shape = SHAPES[name]
    make_tiny(folder)
    _write_tokenizer(folder / "tokenizer.json", shape.vocabulary)
    config = json.loads((folder / "config.json").read_text()) | _config(shape)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    _write_weights(shape, folder / "model.safetensors")


def _config(shape: Shape) -> dict[str, object]:
    return {
        "head_dim": shape.hidden // shape.heads,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "rope_theta": 1_000_000.0,
        "max_position_embeddings": 4096,
        "torch_dtype": "bfloat16",
    }


def _write_tokenizer(path: Path, vocabulary: int) -> None:
    tokenizer = json.loads(path.read_text())
    vocab = tokenizer["model"]["vocab"]
    # An added token keeps its id only where the vocabulary has it too.
    vocab |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocab |= {f"w{number}": number for number in range(len(vocab), vocabulary)}
    path.write_text(json.dumps(tokenizer))


def _write_weights(shape: Shape, path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(_SEED)

    def noise(*size: int) -> Any:
        return torch.randn(*size, generator=generator).mul_(_SPREAD).to(torch.bfloat16)

    size = shape.hidden // shape.heads
    queries, keys = shape.heads * size, shape.kv_heads * size
    tensors: dict[str, Any] = {
        "model.embed_tokens.weight": noise(shape.vocabulary, shape.hidden),
        "model.norm.weight": torch.ones(shape.hidden, dtype=torch.bfloat16),
    }
    if not shape.tied:
        tensors["lm_head.weight"] = noise(shape.vocabulary, shape.hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{norm}.weight"] = torch.ones(shape.hidden, dtype=torch.bfloat16)
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            tensors[f"{prefix}.self_attn.{part}_proj.weight"] = noise(rows, shape.hidden)
            tensors[f"{prefix}.self_attn.{part}_proj.bias"] = torch.zeros(rows, dtype=torch.bfloat16)
        tensors[f"{prefix}.self_attn.o_proj.weight"] = noise(shape.hidden, queries)
        for part in ("gate", "up"):
            tensors[f"{prefix}.mlp.{part}_proj.weight"] = noise(shape.intermediate, shape.hidden)
        tensors[f"{prefix}.mlp.down_proj.weight"] = noise(shape.hidden, shape.intermediate)
    save_file(tensors, str(path), metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    make_shape(options.shape, options.folder)


if __name__ == "__main__":
    main()

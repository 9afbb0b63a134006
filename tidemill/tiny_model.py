"""A small random Qwen2 for tests and demonstrations: real format, real engine, gibberish answers.

Its weights are random sign codes laid out so that every activation is a small integer times a known factor: attention
is purely positional (four fixed offsets), each MLP multiplies pairs of signs, and the logits are therefore integers of
equal parity plus a tie-breaking bias of its own for each token. The likeliest token thus leads by a margin that is
hundreds of times float32 noise whatever the prompt, so that greedy answers are equal however rows are batched.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tidemill.tiny_codes import HEAD_SIZE, HEADS, HIDDEN, INTERMEDIATE, LAYERS, ROPE_BASE, WINDOW, tensors

__all__ = [
    "CHAT_TEMPLATE",
    "END_OF_TURN",
    "VOCABULARY",
    "byte_tokenizer",
    "make_tiny",
    "safetensors",
    "write_json",
]

END_OF_TEXT, START_OF_TURN, END_OF_TURN = 256, 257, 258
VOCABULARY = 259
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny(path: Path, seed: int = 0) -> str:
    """Writes the model folder and returns the SHA-256 (hex) of its weight file; equal seeds give equal bytes.

    Args:
        path: folder to create; files of the same names in it are replaced.
        seed: 0 to 2^63-1.
    """
    path.mkdir(parents=True, exist_ok=True)
    weights = safetensors(tensors(seed, VOCABULARY, END_OF_TURN))
    (path / "model.safetensors").write_bytes(weights)
    write_json(path / "config.json", _config())
    write_json(path / "generation_config.json", {"eos_token_id": END_OF_TURN, "pad_token_id": END_OF_TEXT})
    write_json(path / "tokenizer_config.json", _tokenizer_config())
    _tokenizer().save(str(path / "tokenizer.json"))
    return hashlib.sha256(weights).hexdigest()


def _config() -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": END_OF_TURN,
        "pad_token_id": END_OF_TEXT,
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": WINDOW,
        "model_type": "qwen2",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-6,
        "rope_theta": ROPE_BASE,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY,
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": WINDOW,
        "eos_token": SPECIALS[2],
        "pad_token": SPECIALS[0],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _byte_symbols() -> dict[str, int]:
    """The byte-level alphabet of GPT-2: a printable character for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {chr(byte): byte for byte in printable}
    for offset, byte in enumerate(byte for byte in range(256) if byte not in printable):
        symbols[chr(256 + offset)] = byte
    return symbols


def byte_tokenizer() -> Tokenizer:
    """One token a byte: the token id is the byte. Special tokens are the caller's to add."""
    vocabulary = dict(sorted(_byte_symbols().items(), key=lambda item: item[1]))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _tokenizer() -> Tokenizer:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    return tokenizer


def safetensors(arrays: dict[str, NDArray[np.float32]]) -> bytes:
    """The safetensors format: header length, JSON header, then the tensors (8-byte aligned) one behind another."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    body = b"".join(array.astype("<f4").tobytes() for array in arrays.values())
    return len(encoded).to_bytes(8, "little") + encoded + body


def write_json(path: Path, value: object) -> None:
    """Write a value as readable JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

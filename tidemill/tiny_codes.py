"""Weights of the tiny model: a transformer that computes with signs (see `tiny_model`)."""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HEADS",
    "HEAD_SIZE",
    "HIDDEN",
    "INTERMEDIATE",
    "LAYERS",
    "OFFSETS",
    "ROPE_BASE",
    "WINDOW",
    "attention_scores",
    "tensors",
]

HIDDEN, HEADS, HEAD_SIZE, LAYERS, INTERMEDIATE = 128, 2, 64, 2, 128
WINDOW, ROPE_BASE = 2048, 10000.0

Array = NDArray[np.float32]

# The residual stream holds four blocks of 32 signs, written one after another: the token, what the first attention
# saw, products of both, what the second attention saw. Dimension 0 is always +1 and carries the biases.
_BLOCK = 32
_TOKEN, _SEEN, _PRODUCT, _FAR = (range(start, start + _BLOCK) for start in range(0, HIDDEN, _BLOCK))
_FREE = list(_TOKEN)[1:]
# How far back each head looks, in tokens. A chat's template ends with 13 fixed tokens: the second layer reaches over.
OFFSETS = ((1, 7), (29, 131))
_FREQUENCIES = 10  # rotary pairs that attention uses: enough to single out one position in the window
_SHARPNESS = 40.0  # attention scores of two positions differ by 15 at least: softmax is one-hot in float32
_LOGIT_SCALE = 0.25
_FORBIDDEN = -400.0  # bias of tokens that are never generated, in units of one sign
_LETTERS = b"abcdefghijklmnopqrstuvwxyz ,.\n"
_BIASES = {**dict.fromkeys(b"aeiou", 10.0), **dict.fromkeys(b"nrst", 6.0), ord(" "): 18.0, ord("\n"): -8.0}
_END_BIAS = -2.0


def tensors(seed: int, vocabulary: int, end_of_turn: int) -> dict[str, Array]:
    """The weights by their Hugging Face names, float32."""
    rng = np.random.default_rng(seed)
    weights = {"model.embed_tokens.weight": _embedding(rng, vocabulary)}
    weights |= _layer(rng, 0, _FREE, [*_SEEN], _filled(1))
    weights |= _products(rng, 0, _FREE, [*_SEEN], [*_PRODUCT], size=_filled(2), gain=1.0)
    weights |= _layer(rng, 1, [*_FREE, *_PRODUCT], [*_FAR], _filled(3))
    weights |= _products(rng, 1, [*_PRODUCT], [*_FAR], _FREE, size=_filled(4), gain=2.0)
    weights["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    weights["lm_head.weight"] = _head(rng, vocabulary, end_of_turn)
    return weights


def attention_scores(offset: int) -> Array:
    """Score of each distance back, in tokens, for a head that looks `offset` tokens back."""
    angles = ROPE_BASE ** (-np.arange(_FREQUENCIES) / (HEAD_SIZE // 2))
    distances = np.arange(WINDOW) - offset
    scores = np.cos(np.outer(distances, angles)).sum(axis=1) * _SHARPNESS**2 / np.sqrt(HEAD_SIZE)
    return scores.astype(np.float32)


def _filled(blocks: int) -> float:
    """Size of a sign after the norm when so many blocks are written."""
    return float(np.sqrt(HIDDEN / (blocks * _BLOCK)))


def _signs(rng: np.random.Generator, *shape: int) -> Array:
    return rng.choice(np.array([-1.0, 1.0], np.float32), size=shape)


def _embedding(rng: np.random.Generator, vocabulary: int) -> Array:
    table = np.zeros((vocabulary, HIDDEN), np.float32)
    table[:, _TOKEN] = _signs(rng, vocabulary, _BLOCK)
    table[:, 0] = 1.0
    return table


def _head(rng: np.random.Generator, vocabulary: int, end_of_turn: int) -> Array:
    """Allowed tokens: a random code and a bias of their own; two codes differ by an even number, two biases do not."""
    allowed = [*_LETTERS, end_of_turn]
    head = np.zeros((vocabulary, HIDDEN), np.float32)
    head[:, 0] = _FORBIDDEN
    head[allowed, 1:] = _signs(rng, len(allowed), HIDDEN - 1)
    ties = rng.permutation(len(allowed)).astype(np.float32) * (2.0 / len(allowed))
    wanted = [_END_BIAS if token == end_of_turn else _BIASES.get(token, 0.0) for token in allowed]
    head[allowed, 0] = np.array(wanted, np.float32) + ties
    return head * np.float32(_LOGIT_SCALE)


def _layer(
    rng: np.random.Generator, index: int, sources: list[int], targets: list[int], size: float
) -> dict[str, Array]:
    """Attention that copies signs (`sources` at a fixed offset) into `targets`, half of them from each head."""
    prefix = f"model.layers.{index}"
    value, output = np.zeros((HIDDEN, HIDDEN), np.float32), np.zeros((HIDDEN, HIDDEN), np.float32)
    for head, half in enumerate(np.split(np.array(targets), HEADS)):
        for slot, (target, source) in enumerate(zip(half, rng.choice(sources, len(half), replace=False), strict=True)):
            value[head * HEAD_SIZE + slot, source] = 1.0 / size
            output[target, head * HEAD_SIZE + slot] = _signs(rng, 1)[0]
    query = np.concatenate([_query(offset) for offset in OFFSETS[index]])
    none = np.zeros((HIDDEN, HIDDEN), np.float32)
    return {
        f"{prefix}.input_layernorm.weight": np.ones(HIDDEN, np.float32),
        f"{prefix}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
        f"{prefix}.self_attn.q_proj.weight": none,
        f"{prefix}.self_attn.q_proj.bias": query,
        f"{prefix}.self_attn.k_proj.weight": none,
        f"{prefix}.self_attn.k_proj.bias": np.concatenate([_query(0)] * HEADS),
        f"{prefix}.self_attn.v_proj.weight": value,
        f"{prefix}.self_attn.v_proj.bias": np.zeros(HIDDEN, np.float32),
        f"{prefix}.self_attn.o_proj.weight": output,
    }


def _query(offset: int) -> Array:
    """A vector whose score against `_query(0)` peaks `offset` tokens back under rotary position embedding."""
    half = HEAD_SIZE // 2
    angles = offset * ROPE_BASE ** (-np.arange(_FREQUENCIES) / half)
    vector = np.zeros(HEAD_SIZE, np.float32)
    vector[:_FREQUENCIES] = np.cos(angles) * _SHARPNESS
    vector[half : half + _FREQUENCIES] = -np.sin(angles) * _SHARPNESS
    return vector


def _products(
    rng: np.random.Generator,
    index: int,
    left: list[int],
    right: list[int],
    targets: list[int],
    *,
    size: float,
    gain: float,
) -> dict[str, Array]:
    """An MLP that writes left * right: silu(z) - silu(-z) = z makes a gated pair of units a plain product."""
    prefix = f"model.layers.{index}.mlp"
    gate, up = np.zeros((INTERMEDIATE, HIDDEN), np.float32), np.zeros((INTERMEDIATE, HIDDEN), np.float32)
    down = np.zeros((HIDDEN, INTERMEDIATE), np.float32)
    for pair, target in enumerate(targets):
        source, factor = rng.choice(left), rng.choice(right)
        for unit, sign in ((2 * pair, 1.0), (2 * pair + 1, -1.0)):
            gate[unit, source], up[unit, factor] = sign, 1.0
            down[target, unit] = sign * gain / size**2
    return {f"{prefix}.gate_proj.weight": gate, f"{prefix}.up_proj.weight": up, f"{prefix}.down_proj.weight": down}

"""The tiny model: the same bytes for a seed, and answers that cannot flake."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill import tiny_codes
from tidemill.tiny_model import END_OF_TURN, make_tiny

MARGIN = 0.005
"""Least lead of the likeliest token: half the smallest step between two logits that differ by their biases alone."""

EXAMPLES = Path(__file__).parents[2] / "examples/prompts.jsonl"
PROMPTS = [
    *(f"Question {index}: what do you make of {topic}?" for index in range(25) for topic in ("rain", "a map")),
    *("a", "b", "Hello", "x" * 300, "été", "日本"),
]


def test_a_seed_determines_every_byte(tmp_path: Path) -> None:
    digests = [make_tiny(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert digests[0] == digests[1] != digests[2]
    assert hashlib.sha256((tmp_path / "a/model.safetensors").read_bytes()).hexdigest() == digests[0]
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_every_byte_is_a_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    make_tiny(tmp_path)
    tokenizer: Any = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "A line.\n\tété 日本 <|im_end|>"
    assert tokenizer.encode(text).ids == [*text.removesuffix("<|im_end|>").encode(), END_OF_TURN]
    assert tokenizer.decode(list("été".encode())) == "été"


def test_attention_singles_out_one_position_everywhere() -> None:
    offsets = [offset for layer in tiny_codes.OFFSETS for offset in layer]
    for offset in offsets:
        scores = tiny_codes.attention_scores(offset)
        for position in range(1, tiny_codes.WINDOW):
            second, first = np.partition(scores[: position + 1], -2)[-2:]
            assert first - second > 15, (offset, position)


@pytest.mark.engine
def test_greedy_answers_lead_clearly(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_tiny(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    asked = [json.loads(line)["body"]["messages"] for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    chats = [tokenizer.apply_chat_template(one, add_generation_prompt=True, tokenize=False) for one in asked]
    least, texts = float("inf"), set[str]()
    for prompt in [*PROMPTS, *chats]:
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False).input_ids])
        with torch.no_grad():
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=16,
                return_dict_in_generate=True,
                output_scores=True,
            )
        texts.add(tokenizer.decode(made.sequences[0][ids.shape[1] :], skip_special_tokens=True))
        for scores in made.scores:
            first, second = scores[0].topk(2).values.tolist()
            least = min(least, first - second)
    assert least > MARGIN
    # Three examples share a passage, and with it the text that the model looks back to.
    assert len(texts) > len(chats) / 3, "answers depend on the prompts"
    assert all(text.isascii() for text in texts)

"""The fast encoding of prompts makes the bytes of the slow one."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidemill.encoding import encode_prompt, encode_request
from tidemill.prompt_encoding import encode_prompts
from tidemill.v1 import row_pb2

# Rows of a frame are joined, so what decides is which characters meet in one frame: rare controls are worth a share.
characters = st.one_of(st.characters(codec="utf-8"), st.sampled_from('"\\\n\r\t|{}'), st.sampled_from("\0\b\f\x1b\x7f"))
common = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from('"\\\n\r\t'))


def canonical(prompt: str) -> bytes:
    """The encoding by its definition."""
    fields = {"v": 1, "task": "prompt", "prompt": prompt}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


@given(st.lists(st.text(characters), max_size=8) | st.lists(common, max_size=8))
@example(["", ""])
@example(["\0", ""])
def test_many_prompts_are_encoded_as_one_is(prompts: list[str]) -> None:
    assert encode_prompts(prompts) == [canonical(prompt) for prompt in prompts]


@given(st.text(characters, min_size=1))
def test_a_prompt_alone_is_encoded_as_any_row_is(prompt: str) -> None:
    row = row_pb2.Row(custom_id="a", prompt=prompt)
    assert encode_request(row) == encode_prompt(prompt) == canonical(prompt)
    row.sampling.SetInParent()
    assert encode_request(row) == canonical(prompt)


@pytest.mark.parametrize("code", range(0x20))
def test_every_control_character_is_escaped(code: int) -> None:
    prompts = ["before", f"a{chr(code)}b", "after"]
    assert encode_prompts(prompts) == [canonical(prompt) for prompt in prompts]

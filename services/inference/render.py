"""From a row's request to the token ids that the engine reads: the one place where prompts are built, in both modes.

Rendered and tokenized once by us, because the stages of Ray Data LLM add a second beginning-of-sequence token behind
chat templates that write one already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.inference.sampling import RowRefusedError
from tidemill.encoding import Request
from tidemill.errors import RowCode

__all__ = ["ScorePrompts", "prompt_tokens", "prompts_tokens", "text_tokens"]


def prompt_tokens(tokenizer: Any, request: Request) -> list[int]:
    """Token ids of the prompt, special tokens included, just as vLLM's own `generate` and `chat` build them.

    Args:
        tokenizer: a Hugging Face tokenizer.
        request: the decoded row.

    Raises:
        RowRefusedError: the model has no chat template, or its template refuses the conversation.
    """
    if request.task == "prompt":
        return text_tokens(tokenizer, request.prompt)
    return _chat_tokens(tokenizer, request)


def prompts_tokens(tokenizer: Any, requests: Sequence[Request]) -> list[list[int] | RowRefusedError]:
    """As `prompt_tokens` for many rows, in their order; plain prompts are tokenized together, which is much faster."""
    plain = [index for index, request in enumerate(requests) if request.task == "prompt"]
    texts = [requests[index].prompt for index in plain]
    together: dict[int, list[int]] = dict(zip(plain, tokenizer(texts).input_ids if texts else (), strict=True))
    return [
        together[index] if index in together else _tokens_or_refusal(tokenizer, request)
        for index, request in enumerate(requests)
    ]


def _tokens_or_refusal(tokenizer: Any, request: Request) -> list[int] | RowRefusedError:
    try:
        return prompt_tokens(tokenizer, request)
    except RowRefusedError as refused:
        return refused


def text_tokens(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, special tokens included."""
    return list(tokenizer(text).input_ids)


@dataclass(frozen=True)
class ScorePrompts:
    """Pairs of query and document as a cross-encoder reads them: how depends on the model, and vLLM knows it."""

    processor: Any

    @classmethod
    def of(cls, engine: Any) -> "ScorePrompts":
        """Those of a loaded engine."""
        from vllm.entrypoints.pooling.scoring.io_processor import CrossEncoderIOProcessor
        from vllm.renderers.chat_utils import ChatTemplateConfig

        return cls(CrossEncoderIOProcessor(engine.vllm_config, engine.renderer, ChatTemplateConfig()))

    def render(self, query: str, document: str) -> tuple[list[int], dict[str, Any]]:
        """Token ids, and what the engine must be told beside them: where the second text begins."""
        from vllm.entrypoints.pooling.scoring.utils import compress_token_type_ids

        _, prompt = self.processor.get_score_prompt(query, document, {})
        types = prompt.get("token_type_ids")
        extra = {"compressed_token_type_ids": compress_token_type_ids(types)} if types else {}
        return list(prompt["prompt_token_ids"]), extra


def _chat_tokens(tokenizer: Any, request: Request) -> list[int]:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise RowRefusedError(RowCode.CHAT_NOT_SUPPORTED, "the model has no chat template: send a prompt instead")
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as exc:
        raise RowRefusedError(RowCode.ENGINE_REFUSED, f"the model's chat template refuses the row: {exc}") from exc
    return list(tokenizer(text, add_special_tokens=False).input_ids)

"""From a row's request to the token ids that the engine reads: the one place where prompts are built, in both modes.

Rendered and tokenized once by us, because the stages of Ray Data LLM add a second beginning-of-sequence token behind
chat templates that write one already.
"""

from typing import Any

from services.inference.sampling import RowRefusedError
from tidemill.encoding import Request
from tidemill.errors import RowCode

__all__ = ["prompt_tokens"]


def prompt_tokens(tokenizer: Any, request: Request) -> list[int]:
    """Token ids of the prompt, special tokens included, just as vLLM's own `generate` and `chat` build them.

    Args:
        tokenizer: a Hugging Face tokenizer.
        request: the decoded row.

    Raises:
        RowRefusedError: the model has no chat template, or its template refuses the conversation.
    """
    if request.task == "prompt":
        return list(tokenizer(request.prompt).input_ids)
    return _chat_tokens(tokenizer, request)


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

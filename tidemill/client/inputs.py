"""What a request asks: the values of its input keys, made into the input of a `Row`."""

from collections.abc import Mapping
from typing import Any, cast

from tidemill.client.parameters import FieldError, check_text, show, whole_number
from tidemill.errors import Reason
from tidemill.sampling_limits import DIMENSIONS
from tidemill.v1 import row_pb2

ROLES = ("system", "user", "assistant")


def set_prompt(row: row_pb2.Row, value: object, key: str) -> None:
    """Make `row` continue a prompt. Raises FieldError for `key`, as the others do."""
    row.prompt = _text(value, key, "a prompt", "lists and token ids are not supported")


def set_chat(row: row_pb2.Row, value: object, key: str) -> None:
    """Make `row` answer a chat."""
    if not isinstance(value, list):
        raise FieldError(key, f"must be a list of messages, not {show(value)}")
    messages = cast("list[Any]", value)
    if not messages:
        raise FieldError(key, "is empty; a chat has at least one message")
    row.chat.messages.extend(_message(item, f"{key}[{index}]") for index, item in enumerate(messages))
    if messages[-1]["role"] != "user":
        raise FieldError(f"{key}[{len(messages) - 1}].role", 'must be "user": the model answers the last message')


def set_embedding(row: row_pb2.Row, value: object, key: str, dimensions: object, dimensions_key: str) -> None:
    """Make `row` embed a text; `dimensions` None takes the model's own number."""
    row.embedding.text = _text(value, key, "a text", "a row embeds one text; write a row for each")
    if dimensions is not None:
        row.embedding.dimensions = whole_number(dimensions, DIMENSIONS, dimensions_key)


def set_classification(row: row_pb2.Row, value: object, key: str) -> None:
    """Make `row` classify a text."""
    row.classification.text = _text(value, key, "a text", "a row classifies one text; write a row for each")


def set_score(row: row_pb2.Row, values: tuple[object, object], keys: tuple[str, str]) -> None:
    """Make `row` score a document against a query."""
    remedy = "a row scores one pair; write a row for each"
    query, document = (_text(value, key, "a text", remedy) for value, key in zip(values, keys, strict=True))
    row.score.CopyFrom(row_pb2.ScoreInput(query=query, document=document))


def _text(value: object, key: str, what: str, remedy: str) -> str:
    if not isinstance(value, str):
        raise FieldError(key, f"must be a string ({remedy}), not {show(value)}")
    if not value:
        raise FieldError(key, f"is empty; {what} has at least one character")
    return check_text(value, key)


def _message(item: object, key: str) -> row_pb2.ChatMessage:
    if not isinstance(item, Mapping):
        raise FieldError(key, f'must be an object {{"role": ..., "content": ...}}, not {show(item)}')
    fields = cast("Mapping[str, object]", item)
    for name in fields:
        if name not in ("role", "content"):
            raise FieldError(f"{key}.{name}", "is not supported; remove it", Reason.UNSUPPORTED_PARAMETER)
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES:
        raise FieldError(f"{key}.role", f"must be one of {', '.join(ROLES)}, not {show(role)}")
    if not isinstance(content, str):
        raise FieldError(f"{key}.content", f"must be a string (content parts are not supported), not {show(content)}")
    return row_pb2.ChatMessage(role=cast("str", role), content=check_text(content, f"{key}.content"))

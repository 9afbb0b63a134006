"""The texts that the model reads of a row, whatever its kind."""

from collections.abc import Mapping

from tidemill.v1 import row_pb2

POOLED_TEXTS: Mapping[str, tuple[str, ...]] = {
    "embedding": ("text",),
    "classification": ("text",),
    "score": ("query", "document"),
}
"""Kinds of rows beside prompts and chats, and the fields that hold their texts."""


def is_generation(row: row_pb2.Row) -> bool:
    """Whether the row asks for generated text: a prompt or a chat."""
    return row.WhichOneof("input") in ("prompt", "chat")


def row_texts(row: row_pb2.Row) -> list[str]:
    """The texts of a row that passed its checks."""
    match row.WhichOneof("input"):
        case "prompt":
            return [row.prompt]
        case "chat":
            return [message.content for message in row.chat.messages]
        case kind:
            asked = getattr(row, str(kind))
            return [getattr(asked, name) for name in POOLED_TEXTS[str(kind)]]

"""Rows for tests."""

from typing import Any

from tidemill import digests
from tidemill.encoding import encode_request
from tidemill.segments import InputRow
from tidemill.v1 import row_pb2

__all__ = ["chat", "input_row", "prompt"]


def prompt(custom_id: str, text: str, **sampling: Any) -> row_pb2.Row:
    """A prompt row."""
    return row_pb2.Row(custom_id=custom_id, prompt=text, sampling=row_pb2.SamplingParams(**sampling))


def chat(custom_id: str, text: str, **sampling: Any) -> row_pb2.Row:
    """A chat row with one message."""
    messages = [row_pb2.ChatMessage(role="user", content=text)]
    return row_pb2.Row(
        custom_id=custom_id,
        chat=row_pb2.ChatInput(messages=messages),
        sampling=row_pb2.SamplingParams(**sampling),
    )


def input_row(index: int, row: row_pb2.Row) -> InputRow:
    """The row as a gateway stores it."""
    request = encode_request(row)
    return InputRow(
        index, row.custom_id, row.WhichOneof("input") or "", request, digests.row_digest(row.custom_id, request)
    )

"""The checksum that client and gateway compute alike."""

import google_crc32c

from tidemill.crc import rows_crc32c
from tidemill.v1 import row_pb2


def test_it_covers_ids_prompts_and_messages_in_order() -> None:
    messages = [row_pb2.ChatMessage(role="system", content="Be kürz."), row_pb2.ChatMessage(role="user", content="Hi")]
    rows = [
        row_pb2.Row(custom_id="a", prompt="What?"),
        row_pb2.Row(custom_id="b", chat=row_pb2.ChatInput(messages=messages)),
        row_pb2.Row(custom_id="c"),
    ]
    assert rows_crc32c(rows) == google_crc32c.value("aWhat?bsystemBe kürz.userHic".encode())
    assert rows_crc32c([]) == 0
    assert rows_crc32c(rows[:2]) != rows_crc32c(rows[1::-1])

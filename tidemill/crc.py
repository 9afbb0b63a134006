"""The checksum of a frame of rows, computed alike by client and gateway."""

from collections.abc import Iterable, Iterator
from itertools import chain

import google_crc32c

from tidemill.v1 import row_pb2


def rows_crc32c(rows: Iterable[row_pb2.Row]) -> int:
    """CRC-32C over the UTF-8 bytes of each row's `custom_id`, then `prompt` or each message's `role` and `content`."""
    return google_crc32c.value("".join(_texts(rows)).encode())


def prompts_crc32c(custom_ids: Iterable[str], prompts: Iterable[str]) -> int:
    """`rows_crc32c` of rows that are prompts, from their columns."""
    pairs = zip(custom_ids, prompts, strict=True)
    return google_crc32c.value("".join(chain.from_iterable(pairs)).encode())


def _texts(rows: Iterable[row_pb2.Row]) -> Iterator[str]:
    for row in rows:
        yield row.custom_id
        if row.HasField("chat"):
            for message in row.chat.messages:
                yield message.role
                yield message.content
        else:
            yield row.prompt

"""Pages that fit a message, whatever their records hold: a job's schema alone may have 64 KiB."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

from google.protobuf.message import Message

Record = TypeVar("Record", bound=Message)

PAGE_BYTES = 4 << 20


def fitting(records: Sequence[Record]) -> Sequence[Record]:
    """The first records, one at least, of 4 MiB together."""
    sizes = accumulate(record.ByteSize() for record in records)
    return records[: max(1, sum(size <= PAGE_BYTES for size in sizes))]

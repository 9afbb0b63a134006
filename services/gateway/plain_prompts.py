"""The common frame: prompts without sampling of their own, checked and encoded together.

Anything else, and any frame in which something may be wrong, takes the way of `frames`, row by row; both ways make the
same bytes of the same rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from services.gateway.limits import MAX_CUSTOM_ID_BYTES
from services.gateway.prepared import Prepared
from tidemill.crc import prompts_crc32c
from tidemill.digests import id_hashes, row_digests
from tidemill.prompt_encoding import encode_prompts
from tidemill.v1 import row_pb2

# A character has at most four bytes.
_SURELY_SHORT = MAX_CUSTOM_ID_BYTES // 4


@dataclass(frozen=True)
class PlainPrompts:
    """Custom ids and prompts of a frame, not checked yet."""

    custom_ids: list[str]
    prompts: list[str]

    @property
    def crc32c(self) -> int:
        """The frame's checksum."""
        return prompts_crc32c(self.custom_ids, self.prompts)

    def prepare(self, start: int, *, room: int, max_tokens: int) -> Prepared | None:
        """The rows, encoded; None where a row needs a closer look.

        `room` is what the window leaves for a prompt, in tokens; a prompt of more bytes than that has to be counted.
        """
        sizes = list(map(_utf8_bytes, self.prompts))
        if not all(sizes) or max(sizes) > room or not all(self.custom_ids):
            return None
        if max(map(len, self.custom_ids)) > _SURELY_SHORT:
            return None
        keys = [custom_id.encode() for custom_id in self.custom_ids]
        requests = encode_prompts(self.prompts)
        count = len(keys)
        return Prepared(
            start,
            self.custom_ids,
            ["prompt"] * count,
            requests,
            row_digests(keys, requests),
            id_hashes(keys),
            sizes,
            [max_tokens] * count,
            [False] * count,
        )


def plain_prompts(rows: Iterable[row_pb2.Row]) -> PlainPrompts | None:
    """The frame's columns; None when a row is something else than a prompt alone."""
    custom_ids, prompts = list[str](), list[str]()
    for row in rows:
        if row.WhichOneof("input") != "prompt" or row.HasField("sampling"):
            return None
        custom_ids.append(row.custom_id)
        prompts.append(row.prompt)
    return PlainPrompts(custom_ids, prompts) if prompts else None


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())

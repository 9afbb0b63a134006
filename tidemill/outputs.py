"""What a model answered to a row, whatever the row's kind, as it travels between processes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tidemill import digests

__all__ = ["Alternative", "ClassScore", "Output", "TokenLogprob", "TopLogprob", "pack_vector", "unpack_vector"]


class TopLogprob(NamedTuple):
    """A token and its log probability. Tuples, since a row may have tens of thousands of them."""

    token: str
    logprob: float


class TokenLogprob(NamedTuple):
    """A generated token, its log probability (natural, at most 0, float32), and the likeliest at its place, the
    likeliest first."""

    token: str
    logprob: float
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True)
class ClassScore:
    """A class and how likely it is, 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True)
class Alternative:
    """A further answer to a row that asked for several; `logprobs` is None where none were asked for."""

    text: str
    finish_reason: str
    output_tokens: int
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class Output:
    """An answer; what the row's kind does not give is None.

    Attributes:
        text: of a prompt or chat.
        vector: of an embedding: float32, little-endian, see `pack_vector`.
        classes: of a classification: all of them, the likeliest first.
        score: of a score row.
        alternatives: the second to n-th answer of a prompt or chat.
        logprobs: one entry a token of `text`.
    """

    text: str | None = None
    vector: bytes | None = None
    classes: tuple[ClassScore, ...] | None = None
    score: float | None = None
    alternatives: tuple[Alternative, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def is_text_alone(self) -> bool:
        """Nothing beside the text."""
        return self.vector is self.classes is self.score is self.alternatives is self.logprobs is None

    @property
    def digest(self) -> bytes:
        """32 bytes over the whole answer; of a text alone, `tidemill.digests.output_digest`.

        Finish reasons and token counts are left out, as they are for a text alone.
        """
        return digests.output_digest(self.text or "") if self.is_text_alone else _digest(self)


def pack_vector(values: Sequence[float]) -> bytes:
    """Numbers as `Output.vector` holds them."""
    return struct.pack(f"<{len(values)}f", *values)


def unpack_vector(data: bytes) -> tuple[float, ...]:
    """The numbers of an `Output.vector`."""
    return struct.unpack(f"<{len(data) // 4}f", data)


def _digest(output: Output) -> bytes:
    parts: list[tuple[bytes, bytes]] = []
    if output.text is not None:
        parts.append((b"t", output.text.encode()))
    if output.vector is not None:
        parts.append((b"v", output.vector))
    if output.classes is not None:
        parts.append((b"c", b"".join(_number_of(item.label, item.probability) for item in output.classes)))
    if output.score is not None:
        parts.append((b"s", struct.pack("<d", output.score)))
    if output.logprobs is not None:
        parts.append((b"l", _logprobs(output.logprobs)))
    for item in output.alternatives or ():
        parts.append((b"T", item.text.encode()))
        if item.logprobs is not None:
            parts.append((b"L", _logprobs(item.logprobs)))
    return digests.answer_digest(parts)


def _number_of(name: str, value: float) -> bytes:
    return _counted(name) + struct.pack("<d", value)


def _logprobs(tokens: Sequence[TokenLogprob]) -> bytes:
    # The count of alternatives stands before them, so that equal bytes are equal entries.
    pieces: list[bytes] = []
    for token, logprob, top in tokens:
        pieces.append(_counted(token) + struct.pack("<fI", logprob, len(top)))
        pieces.extend(_counted(name) + struct.pack("<f", value) for name, value in top)
    return b"".join(pieces)


def _counted(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data

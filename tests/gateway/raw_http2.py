"""HTTP/2 by hand, for clients that break off, say half of something, or nothing at all."""

import asyncio
import contextlib
import struct
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CANCEL = 8
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_END_STREAM, _END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings() -> bytes:
    """Empty SETTINGS: all defaults."""
    return frame(_SETTINGS, 0, 0)


def headers(stream: int, method: str, authorization: str, *, end: bool = False, extra: int = 0) -> bytes:
    """HEADERS of a gRPC call; `extra` bytes of further metadata."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "x"), ("te", "trailers")]
    fields += [("content-type", "application/grpc"), ("authorization", authorization)]
    fields += [("x-odd", "y" * extra)] if extra else []
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
    return frame(_HEADERS, _END_HEADERS | (_END_STREAM if end else 0), stream, block)


def data(stream: int, payload: bytes, *, end: bool = False) -> bytes:
    """DATA."""
    return frame(_DATA, _END_STREAM if end else 0, stream, payload)


def message(body: bytes) -> bytes:
    """A gRPC message with its length in front."""
    return b"\0" + struct.pack(">I", len(body)) + body


def reset(stream: int) -> bytes:
    """RST_STREAM."""
    return frame(_RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


def _text(text: str) -> bytes:
    """A literal without Huffman coding (RFC 7541, 5.2)."""
    size, encoded = len(text), bytearray()
    if size < 127:
        encoded.append(size)
    else:
        encoded.append(127)
        size -= 127
        while size >= 128:
            encoded.append(size % 128 + 128)
            size //= 128
        encoded.append(size)
    return bytes(encoded) + text.encode()


class RawConnection:
    """A TCP connection on which anything can be said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: str) -> Self:
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def say(self, *pieces: bytes) -> None:
        """Send; what the peer does with it is another matter. A peer that hung up is no error here."""
        self._writer.write(b"".join(pieces))
        try:
            await self._writer.drain()
        except ConnectionError:
            self.vanish()

    def vanish(self) -> None:
        """End the connection at once, without a good-bye."""
        self._writer.transport.abort()

    async def ended(self) -> None:
        """Return when the peer has ended the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass
        self.vanish()

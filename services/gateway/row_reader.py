"""Reads a file of rows from its standard input and writes frames to its standard output.

Run as a process of its own, `python -m services.gateway.row_reader FORMAT NAME MODEL`: what a file does to the memory
or the life of its reader, it does to nobody else. Each message is a kind (one byte), the length of its content (four,
big endian), and the content. That of a frame is the number of its rows (four bytes), the line of each (eight), and the
rows as an `AppendRowsRequest`; that of an error is JSON. `row_reading` is the other side.
"""

import json
import resource
import sys
from array import array
from collections.abc import Iterator
from typing import BinaryIO

from services.gateway.limits import MAX_FRAME_BYTES
from tidemill.client.jsonl import read_lines, refuse
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_service_pb2, row_pb2

FRAME, ERROR, END = b"F", b"E", b"."
MEMORY_BYTES = 2 << 30
FRAME_ROWS = 512
FRAME_BYTES = 512 << 10

Numbered = tuple[int, row_pb2.Row]


def main(arguments: list[str]) -> None:
    """Write everything that the file holds, then the end or an error."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind, name, model = arguments
    with open(0, "rb", closefd=False) as file, open(1, "wb", closefd=False) as out:
        try:
            for numbered in frames(numbered_rows(kind, file, name, model), name):
                _write(out, FRAME, _packed(numbered))
            _write(out, END, b"")
        except TidemillError as exc:
            _write(out, ERROR, _error(exc))
        except MemoryError:
            problem = f"{name} needs more than {MEMORY_BYTES >> 20} MiB of memory to be read: make its rows smaller"
            _write(out, ERROR, _error(TidemillError(Reason.INVALID_FILE, problem)))


def frames(rows: Iterator[Numbered], name: str) -> Iterator[list[Numbered]]:
    """The rows in frames of bounded size; a row that fits into none is refused."""
    frame, size = list[Numbered](), 0
    for number, row in rows:
        own = row.ByteSize() + 16
        if own > MAX_FRAME_BYTES - 64:
            refuse(name, number, "", f"the row has {own} bytes; at most {MAX_FRAME_BYTES - 64} are allowed")
        if frame and (size + own > FRAME_BYTES or len(frame) == FRAME_ROWS):
            yield frame
            frame, size = [], 0
        frame.append((number, row))
        size += own
    if frame:
        yield frame


def numbered_rows(kind: str, file: BinaryIO, name: str, model: str) -> Iterator[Numbered]:
    """The rows of a JSONL or PARQUET file, each with its line, or its number, from 1."""
    if kind == "JSONL":
        return ((item.line, item.request.row) for item in read_lines(file, name, model))
    from services.gateway.parquet_file import parquet_rows

    return enumerate(parquet_rows(file, name), start=1)


def _packed(frame: list[Numbered]) -> bytes:
    lines = array("Q", [number for number, _ in frame])
    rows = [row for _, row in frame]
    count = len(rows).to_bytes(4, "big")
    return count + lines.tobytes() + job_service_pb2.AppendRowsRequest(rows=rows).SerializeToString()


def _error(exc: TidemillError) -> bytes:
    return json.dumps({"reason": exc.reason, "message": exc.message, "metadata": exc.metadata}).encode()


def _write(out: BinaryIO, kind: bytes, content: bytes) -> None:
    out.write(kind + len(content).to_bytes(4, "big"))
    out.write(content)
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1:])

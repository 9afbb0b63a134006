"""The rows of a file, read by a process of its own."""

import asyncio
import json
import os
import sys
from array import array
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from services.gateway.row_reader import END, ERROR, MEMORY_BYTES
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_service_pb2, row_pb2

# Of the reader between two frames, which are made of half a megabyte.
_SILENT_SECONDS = 120.0
_SECRETS = ("TIDEMILL_", "AWS_")
_SMALL = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class FileFrame:
    """Rows of a file in their order, and where in the file each stands, from 1."""

    lines: Sequence[int]
    rows: Sequence[row_pb2.Row]


async def read_frames(file: BinaryIO, kind: str, name: str, model: str) -> AsyncGenerator[FileFrame, None]:
    """The rows of `file` (JSONL or PARQUET), frame by frame; INVALID_FILE, INVALID_ROWS or UNSUPPORTED_PARAMETER.

    `name` is for messages; rows that name another model than `model` are refused. The reader ends with the iterator.
    """
    command = (sys.executable, "-m", "services.gateway.row_reader", kind, name, model)
    process = await asyncio.create_subprocess_exec(*command, stdin=file, stdout=PIPE, env=_environment())
    stream = cast("asyncio.StreamReader", process.stdout)
    try:
        while True:
            content = await _message(stream, name)
            if content is None:
                return
            yield _frame(content)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _message(stream: asyncio.StreamReader, name: str) -> bytes | None:
    try:
        async with asyncio.timeout(_SILENT_SECONDS):
            head = await stream.readexactly(5)
            content = await stream.readexactly(int.from_bytes(head[1:], "big"))
    except (asyncio.IncompleteReadError, TimeoutError):
        raise TidemillError(
            Reason.INVALID_FILE,
            f"{name} could not be read: its reader ended, or said nothing for {_SILENT_SECONDS:g} s. The file is "
            f"damaged, or needs more than {MEMORY_BYTES >> 20} MiB of memory",
            metadata={"file": name},
        ) from None
    if head[:1] == ERROR:
        fields = json.loads(content)
        raise TidemillError(Reason(fields["reason"]), fields["message"], metadata=fields["metadata"])
    return None if head[:1] == END else content


def _frame(content: bytes) -> FileFrame:
    count = int.from_bytes(content[:4], "big")
    lines = array("Q", content[4 : 4 + 8 * count])
    return FileFrame(lines, job_service_pb2.AppendRowsRequest.FromString(content[4 + 8 * count :]).rows)


def _environment() -> dict[str, str]:
    """Ours, without what is secret."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
    return {**kept, **_SMALL}

"""Whether the engine can answer under a JSON schema, found out before the engine sees it."""

import asyncio
import contextlib
import json
import select
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import IO, cast

from services.inference.sampling import RowRefusedError
from services.inference.schema_check import CPU_SECONDS
from tidemill.errors import RowCode
from tidemill.json_schema import SchemaFaultError, read_schema

__all__ = ["SchemaChecker"]

_REMEMBERED = 1024
_ROOT = Path(__file__).parents[2]
_START_SECONDS = 240.0
# Of a busy machine: the checker's own limit is in processor time.
_WAIT_SECONDS = 120.0


class SchemaChecker:
    """Answers for one model, and remembers its answers; compiling is the work of a process of its own.

    Args:
        folder: the model's, with its tokenizer.
        vocabulary: number of tokens that the engine knows.
    """

    def __init__(self, folder: str, vocabulary: int) -> None:
        self._command = [sys.executable, "-m", "services.inference.schema_check", folder, str(vocabulary)]
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._known: OrderedDict[str, asyncio.Future[str]] = OrderedDict()

    async def require(self, schema: str) -> None:
        """Nothing when the engine can answer under the schema; else RowRefusedError with SCHEMA_INVALID."""
        known = self._known.get(schema)
        if known is None or (known.done() and known.exception()):
            known = self._known[schema] = asyncio.ensure_future(asyncio.to_thread(self._fault, schema))
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        # Rows that wait for the same answer may be aborted one by one.
        if fault := await asyncio.shield(known):
            raise RowRefusedError(RowCode.SCHEMA_INVALID, f"sampling.json_schema {fault}")

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _fault(self, schema: str) -> str:
        if fault := _shape_fault(schema):
            return fault
        with self._turn:
            return self._compiled(schema)

    def _compiled(self, schema: str) -> str:
        self._process = self._process or self._started()
        answer = _ask(self._process, json.dumps(schema), _WAIT_SECONDS)
        if answer is None:
            self.close()
            return (
                f"is too complex: compiling it and trying an answer takes more than {CPU_SECONDS} s, or too much memory"
            )
        return f"does not compile: {answer.strip()[:500]}" if answer else ""

    def _started(self) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, cwd=_ROOT)  # noqa: S603 - our own module
        if _answer(process, _START_SECONDS) is None:
            _end(process)
            raise RuntimeError("the process that checks schemas does not start")
        return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill it and close its pipes, one of which may hold what it never read."""
    process.kill()
    with contextlib.suppress(BrokenPipeError):
        cast("IO[bytes]", process.stdin).close()
    cast("IO[bytes]", process.stdout).close()
    process.wait()


def _ask(process: "subprocess.Popen[bytes]", line: str, seconds: float) -> str | None:
    stdin = cast("IO[bytes]", process.stdin)
    try:
        stdin.write(line.encode() + b"\n")
        stdin.flush()
    except BrokenPipeError:
        return None
    return _answer(process, seconds)


def _answer(process: "subprocess.Popen[bytes]", seconds: float) -> str | None:
    """The next line; None when the process ended or took too long."""
    stdout = cast("IO[bytes]", process.stdout)
    if not select.select([stdout], [], [], seconds)[0]:
        return None
    line = stdout.readline()
    return str(json.loads(line)) if line else None


def _shape_fault(schema: str) -> str:
    """What is wrong with a schema before anything compiles it; empty for nothing."""
    from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

    try:
        value = read_schema(schema)
    except SchemaFaultError as exc:
        return f"is refused: {exc}"
    if has_xgrammar_unsupported_json_features(value):
        return (
            "uses a keyword, or a combination of keywords, that the engine cannot hold answers to, such as multipleOf, "
            "uniqueItems, contains, several allOf, or pattern beside maxLength: leave it out"
        )
    return ""

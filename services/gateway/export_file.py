"""Results as a file: JSONL of OpenAI batch output, or Parquet. The same results make the same bytes."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

import pyarrow.parquet as pq

from services.gateway.places import Existing
from services.gateway.transfers import PARQUET, Format
from tidemill.client.arrow import BatchBuilder, result_schema
from tidemill.client.openai_output import output_line
from tidemill.client.requests import Endpoint
from tidemill.v1 import job_pb2, row_pb2

_pq = cast("Any", pq)


class ResultFile(ABC):
    """A file that is being written. Blocking."""

    @abstractmethod
    def write(self, results: Sequence[row_pb2.RowResult], tasks: Sequence[str]) -> None:
        """Append results; `tasks` are what their rows asked for."""

    @abstractmethod
    def finish(self) -> Existing:
        """Write what is left; what the whole file is."""


def open_result_file(kind: Format, file: BinaryIO, job: job_pb2.Job) -> ResultFile:
    """A file of results of `job` in form `kind`."""
    return _Parquet(file) if kind == PARQUET else _Lines(file, job)


class _Lines(ResultFile):
    def __init__(self, file: BinaryIO, job: job_pb2.Job) -> None:
        self._file = _Hashing(file)
        self._job = job

    def write(self, results: Sequence[row_pb2.RowResult], tasks: Sequence[str]) -> None:
        for result, task in zip(results, tasks, strict=True):
            endpoint = Endpoint.CHAT if task == "chat" else Endpoint.COMPLETION
            self._file.write(output_line(result, self._job, endpoint).encode() + b"\n")

    def finish(self) -> Existing:
        return self._file.summary()


class _Parquet(ResultFile):
    def __init__(self, file: BinaryIO) -> None:
        self._file = _Hashing(file)
        self._batches = BatchBuilder()
        self._writer = _pq.ParquetWriter(self._file, result_schema(), compression="zstd", store_schema=False)

    def write(self, results: Sequence[row_pb2.RowResult], tasks: Sequence[str]) -> None:  # noqa: ARG002 - not needed
        for result in results:
            if batch := self._batches.add(result):
                self._writer.write_batch(batch)

    def finish(self) -> Existing:
        if (rest := self._batches.finish()).num_rows:
            self._writer.write_batch(rest)
        self._writer.close()
        return self._file.summary()


class _Hashing:
    """A file that only grows, and the digest of what was written."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B") if not isinstance(data, bytes) else data
        self._file.write(content)
        self._digest.update(content)
        self._size += len(content)
        return len(content)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """The file is its owner's."""

    def summary(self) -> Existing:
        return Existing(self._digest.digest(), self._size)

"""Where results go: standard output, or a file that appears when it is complete."""

import os
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tidemill.client.openai_output import output_line
from tidemill.client.requests import Endpoint
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, row_pb2

ENDPOINT_LABEL = "tidemill-endpoint"


@contextmanager
def result_stream(output: str | None) -> Generator[TextIO]:
    """Standard output, or the file `output`, renamed into place at the end; its folder is tried at once."""
    if output is None or output == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(output)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        stream = partial.open("w", encoding="utf-8")
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        raise TidemillError(Reason.INVALID_FILE, f"cannot write {path}: {why}") from None
    try:
        with stream:
            yield stream
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_results(
    stream: TextIO,
    results: Iterable[row_pb2.RowResult],
    job: job_pb2.Job,
    endpoint_of: Callable[[int], Endpoint],
) -> None:
    """Write `results` as OpenAI batch output; `endpoint_of` tells a row's endpoint by its index."""
    for result in results:
        stream.write(output_line(result, job, endpoint_of(result.row_index)) + "\n")


def endpoint_of_job(job: job_pb2.Job) -> Endpoint:
    """The endpoint that the job's rows are for, as far as its label tells: chat unless it says completions."""
    return Endpoint.COMPLETION if job.labels.get(ENDPOINT_LABEL) == "completions" else Endpoint.CHAT

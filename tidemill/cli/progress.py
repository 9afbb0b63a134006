"""A job's progress: one live line on a terminal, a plain line now and then elsewhere. Always on standard error."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tidemill.cli.console import draw_live, end_live, note
from tidemill.client.cursors import is_terminal, state_name
from tidemill.client.durations import format_duration
from tidemill.v1 import job_pb2

_PLAIN_SECONDS = 5.0
_WINDOW_SECONDS = 10.0
_BAR = 24


@dataclass(frozen=True)
class _Sample:
    time: float
    rows: int
    tokens: int


class JobProgress:
    """Shows snapshots of one job as they come."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._samples: deque[_Sample] = deque()
        self._printed_at = 0.0
        self._printed_state = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        end_live()

    def follow(self, snapshots: Iterator[job_pb2.Job]) -> job_pb2.Job:
        """Show `snapshots` and return the last one."""
        job = job_pb2.Job()
        for job in snapshots:
            self.show(job)
        return job

    def show_sent(self, rows: int, total: int | None) -> None:
        """Rows read for sending so far."""
        of = f"/{total}" if total is not None else ""
        self._line(f"sending {rows}{of} rows", "SENDING")

    def show(self, job: job_pb2.Job) -> None:
        """The job as it stands."""
        self._line(describe(job, *self._rates(job)), f"{job.state}-{job.phase}-{job.sla_state}", last=is_terminal(job))

    def _rates(self, job: job_pb2.Job) -> tuple[float, float]:
        """Rows and output tokens a second over the last seconds."""
        now = time.monotonic()
        self._samples.append(_Sample(now, finished_rows(job), job.usage.output_tokens))
        while len(self._samples) > 2 and now - self._samples[0].time > _WINDOW_SECONDS:
            self._samples.popleft()
        first, last = self._samples[0], self._samples[-1]
        seconds = last.time - first.time
        if seconds <= 0:
            return 0.0, 0.0
        return (last.rows - first.rows) / seconds, (last.tokens - first.tokens) / seconds

    def _line(self, text: str, state: str, *, last: bool = False) -> None:
        if self._live:
            draw_live(text)
            return
        now = time.monotonic()
        if last or state != self._printed_state or now - self._printed_at >= _PLAIN_SECONDS:
            note(text)
            self._printed_at, self._printed_state = now, state


def finished_rows(job: job_pb2.Job) -> int:
    """Rows that have an outcome."""
    counts = job.row_counts
    return counts.succeeded + counts.failed + counts.cancelled + counts.expired


def describe(job: job_pb2.Job, rows_per_second: float = 0.0, tokens_per_second: float = 0.0) -> str:
    """The job in one line: state, rows, tokens a second, time left, whether its deadline will hold."""
    done, total = finished_rows(job), job.row_counts.total
    share = done / total if total else 0.0
    bar = "#" * round(share * _BAR)
    parts = [f"{_state(job):<10} [{bar:<{_BAR}}] {done}/{total} rows"]
    if job.row_counts.failed:
        parts.append(f"{job.row_counts.failed} failed")
    if is_terminal(job):
        seconds = (job.end_time.ToNanoseconds() - job.create_time.ToNanoseconds()) / 1e9
        parts.append(f"{job.usage.output_tokens} tokens in {format_duration(max(seconds, 0))}")
    elif tokens_per_second > 0:
        parts.append(f"{tokens_per_second:,.0f} tokens/s")
        left = _seconds_left(job, total - done, rows_per_second)
        parts += [f"{format_duration(left)} left"] if left is not None else []
    if not is_terminal(job):
        parts += _outlook(job)
    return ", ".join(parts)


_SLA = {
    job_pb2.SLA_STATE_ON_TRACK: "on track",
    job_pb2.SLA_STATE_AT_RISK: "at risk",
    job_pb2.SLA_STATE_BREACHED: "late",
}


def sla_words(job: job_pb2.Job) -> str:
    """Whether the deadline will hold; empty where it cannot be told."""
    return _SLA.get(job.sla_state, "")


def _outlook(job: job_pb2.Job) -> list[str]:
    parts = [words] if (words := sla_words(job)) else []
    if job.HasField("eta_p90_time"):
        left = max(0.0, job.eta_p90_time.ToNanoseconds() / 1e9 - time.time())
        parts.append(f"done within {format_duration(left)} nine times in ten")
    return [f"paused: {job.pause.message}"] if job.HasField("pause") else parts


def _state(job: job_pb2.Job) -> str:
    if job.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING) and job.phase:
        if job.phase == job_pb2.JOB_PHASE_LOADING_MODEL:
            return "LOADING"
        if job.phase == job_pb2.JOB_PHASE_FINALISING:
            return "FINALISING"
    return state_name(job)


def _seconds_left(job: job_pb2.Job, rows: int, rows_per_second: float) -> float | None:
    if job.HasField("eta_p50_time"):
        return max(0.0, job.eta_p50_time.ToNanoseconds() / 1e9 - time.time())
    if job.HasField("estimated_finish_time"):
        return max(0.0, job.estimated_finish_time.ToNanoseconds() / 1e9 - time.time())
    return rows / rows_per_second if rows_per_second > 0 else None

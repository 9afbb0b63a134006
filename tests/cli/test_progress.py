import io
import os
import re

import pytest

from tidemill.cli.console import note
from tidemill.cli.progress import JobProgress, describe
from tidemill.v1 import job_pb2


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def job(done: int, tokens: int = 0, state: job_pb2.JobState.ValueType = job_pb2.JOB_STATE_RUNNING) -> job_pb2.Job:
    counts = job_pb2.RowCounts(total=100, succeeded=done, pending=100 - done)
    return job_pb2.Job(state=state, row_counts=counts, usage=job_pb2.TokenUsage(output_tokens=tokens))


def test_a_running_job_in_words() -> None:
    line = describe(job(25, 1000), rows_per_second=5, tokens_per_second=1234.5)
    assert line == "RUNNING    [######                  ] 25/100 rows, 1,234 tokens/s, 15s left"


def test_phases_and_failures_show() -> None:
    loading = job(0)
    loading.phase = job_pb2.JOB_PHASE_LOADING_MODEL
    assert describe(loading).startswith("LOADING ")
    failing = job(10)
    failing.row_counts.failed = 3
    assert "3 failed" in describe(failing)


def test_the_outlook_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    risky = job(25, 1000)
    risky.sla_state = job_pb2.SLA_STATE_AT_RISK
    risky.eta_p50_time.FromSeconds(1100)
    risky.eta_p90_time.FromSeconds(1150)
    line = describe(risky, rows_per_second=5, tokens_per_second=10)
    assert line.endswith("10 tokens/s, 1m40s left, at risk, done within 2m30s nine times in ten")
    late = job(25)
    late.sla_state = job_pb2.SLA_STATE_BREACHED
    assert describe(late).endswith(", late")
    stopped = job(25, state=job_pb2.JOB_STATE_PAUSED)
    stopped.pause.message = "all rows failed"
    assert describe(stopped).endswith("paused: all rows failed")


def test_a_finished_job_has_its_time() -> None:
    ended = job(100, 4321, job_pb2.JOB_STATE_SUCCEEDED)
    ended.create_time.FromSeconds(1000)
    ended.end_time.FromSeconds(1125)
    assert describe(ended).endswith("100/100 rows, 4321 tokens in 2m05s")


def test_a_terminal_has_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with JobProgress() as progress:
        last = progress.follow(iter([job(0), job(50), job(100, 7, job_pb2.JOB_STATE_SUCCEEDED)]))
    assert last.row_counts.succeeded == 100
    note("below")
    assert terminal.getvalue().count("\n") == 2
    assert terminal.getvalue().endswith("\nbelow\n")
    assert len(terminal.getvalue().split("\r")) == 4


def test_other_lines_go_above_the_live_one(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 5)))
    with JobProgress() as progress:
        progress.show(job(1))
        note("news")
    live = describe(job(1))[:19]
    assert terminal.getvalue() == f"\r\x1b[K{live}\r\x1b[Knews\n{live}\n"


def test_elsewhere_a_line_for_each_change_of_state(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    with JobProgress() as progress:
        progress.follow(iter([job(0), *(job(done) for done in range(1, 99)), job(100, 7, job_pb2.JOB_STATE_SUCCEEDED)]))
    lines = output.getvalue().splitlines()
    assert len(lines) == 2
    assert re.match(r"SUCCEEDED  \[#{24}\] 100/100 rows", lines[-1])

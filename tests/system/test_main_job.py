"""The main job through the real processes, with the faults that a night brings."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.job_client import JobClient, check_history
from tests.system.processes import Stack, wait_for
from tidemill.store import attach_store
from tidemill.tiny_model import make_tiny
from tidemill.v1 import job_pb2, job_service_pb2, row_pb2
from tidemill.verify import verify

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROWS = 1000
CHUNK_ROWS = 50
SAMPLING = {"temperature": 0.0, "max_tokens": 64}
TOPICS = ("the sea", "a harbour at night", "bread", "glass", "an old map", "rain", "a long letter")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Stack]:
    settings = {
        "TIDEMILL_INFERENCE_MODELS": f"tiny={model}",
        "TIDEMILL_INFERENCE_PRELOAD": "tiny",
        "TIDEMILL_SCHEDULER_CHUNK_ROWS": str(CHUNK_ROWS),
        "TIDEMILL_SCHEDULER_LEASE_SECONDS": "5",
        "TIDEMILL_SCHEDULER_MAX_LEASES_PER_JOB": "3",
    }
    stack = Stack(tmp_path_factory.mktemp("home"), settings)
    try:
        for name in ("scheduler", "gateway", "inference"):
            stack.start(name)
        yield stack
    finally:
        stack.close()


@pytest.fixture
def client(stack: Stack) -> Iterator[JobClient]:
    client = JobClient(stack.address_of("gateway"), stack.key)
    yield client
    client.close()


def rows(run: str) -> list[row_pb2.Row]:
    """Every other row is a chat; all prompts differ."""
    made: list[row_pb2.Row] = []
    for index in range(ROWS):
        text = f"{run} {index}: say a few words about {TOPICS[index % len(TOPICS)]}, number {index * 7919}."
        row = row_pb2.Row(custom_id=f"row-{index}")
        if index % 2:
            row.chat.messages.add(role="user", content=text)
        else:
            row.prompt = text
        made.append(row)
    return made


def job(dataset: str) -> job_pb2.Job:
    sampling = row_pb2.SamplingParams(temperature=0, max_tokens=int(SAMPLING["max_tokens"]))
    return job_pb2.Job(model="tiny", sampling=sampling, dataset=dataset)


def bare_answers(model: Path, asked: list[row_pb2.Row], folder: Path) -> list[str]:
    """What `vllm.LLM` alone says."""
    work = [
        {"prompt": row.prompt}
        if row.prompt
        else {"messages": [{"role": item.role, "content": item.content} for item in row.chat.messages]}
        for row in asked
    ]
    source, target = folder / "bare-in.json", folder / "bare-out.json"
    source.write_text(json.dumps({"rows": work, "sampling": SAMPLING}))
    script = Path(__file__).with_name("bare_vllm.py")
    finished = subprocess.run(
        [sys.executable, str(script), str(model), str(source), str(target)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(target.read_text())


def check_answers(asked: list[row_pb2.Row], answers: list[row_pb2.RowResult]) -> None:
    """I1 and I3: each row exactly one answer, in order, under its own key."""
    assert [answer.row_index for answer in answers] == list(range(len(asked)))
    assert [answer.custom_id for answer in answers] == [row.custom_id for row in asked]
    assert {answer.status for answer in answers} == {row_pb2.ROW_STATUS_SUCCEEDED}
    assert all(answer.output_tokens > 0 and answer.finish_reason for answer in answers)
    assert len({(answer.model_digest, answer.engine_build) for answer in answers}) == 1


def test_every_row_gets_the_answer_of_bare_vllm(stack: Stack, client: JobClient, model: Path) -> None:
    asked = rows("plain")
    submitted = client.submit(job("plain"), asked)
    snapshots = client.wait(submitted.name)
    check_history(snapshots)
    assert snapshots[-1].state == job_pb2.JOB_STATE_SUCCEEDED
    answers = client.results(submitted.name)
    check_answers(asked, answers)
    finished = client.results(submitted.name, job_service_pb2.RESULT_ORDER_COMPLETION)
    assert sorted(answer.row_index for answer in finished) == list(range(ROWS))
    manifest = json.loads((stack.home / "store" / output_manifest(submitted.name)).read_text())
    assert len({part["chunk_start"] for part in manifest["parts"]}) >= ROWS // CHUNK_ROWS
    report = verify(attach_store((stack.home / "store").as_uri()), output_manifest(submitted.name))
    assert (report.verified, report.succeeded, report.rows) == (True, ROWS, ROWS), report.findings
    provenance = client.provenance(submitted.name, ROWS - 1)
    assert (provenance.result, list(provenance.mismatches)) == (answers[-1], [])
    assert provenance.engine.dtype == "float32"
    texts = [answer.text for answer in answers]
    assert len(set(texts)) > 0.8 * ROWS, "the model tells its prompts apart too little to show a mix-up"
    assert texts == bare_answers(model, asked, stack.home)


def output_manifest(name: str) -> str:
    _, tenant, _, job_id = name.split("/")
    return f"jobs/{tenant}/{job_id}/output/manifest.json"


def test_killing_inference_loses_and_duplicates_nothing(stack: Stack, client: JobClient) -> None:
    asked = rows("kill")
    submitted = client.submit(job("kill"), asked)
    before = client.watch_until(submitted.name, lambda seen: seen.row_counts.succeeded >= 100, 120)
    assert before[-1].row_counts.succeeded < ROWS, "the job ended before the kill"
    stack.kill("inference")
    stack.start("inference")
    snapshots = client.wait(submitted.name)
    check_history([*before, *snapshots])
    assert snapshots[-1].state == job_pb2.JOB_STATE_SUCCEEDED
    check_answers(asked, client.results(submitted.name))


def test_a_restart_of_the_scheduler_costs_nothing_but_time(stack: Stack, client: JobClient) -> None:
    asked = rows("restart")
    submitted = client.submit(job("restart"), asked)
    before = client.watch_until(submitted.name, lambda seen: seen.row_counts.succeeded >= 100, 120)
    assert before[-1].row_counts.succeeded < ROWS, "the job ended before the restart"
    stack.kill("scheduler")
    stack.start("scheduler")
    snapshots = client.wait(submitted.name)
    check_history([*before, *snapshots])
    assert snapshots[-1].state == job_pb2.JOB_STATE_SUCCEEDED
    check_answers(asked, client.results(submitted.name))


def test_equal_input_gives_equal_versions(client: JobClient) -> None:
    """The same rows, answered under other faults and other chunks, are the same data."""
    asked = rows("versions")[:64]
    finished = [client.wait(client.submit(job(name), asked).name)[-1] for name in ("first", "second")]
    assert finished[0].input_data_version == finished[1].input_data_version
    assert finished[0].output_data_version == finished[1].output_data_version


def test_cancel_keeps_what_was_finished(client: JobClient) -> None:
    asked = rows("cancel")
    submitted = client.submit(job("cancel"), asked)
    client.watch_until(submitted.name, lambda seen: seen.row_counts.succeeded >= 50, 120)
    client.cancel(submitted.name)
    ended = client.wait(submitted.name)[-1]
    assert ended.state == job_pb2.JOB_STATE_CANCELLED
    assert ended.row_counts.succeeded >= 50
    assert ended.row_counts.succeeded + ended.row_counts.cancelled == ROWS
    answers = client.results(submitted.name)
    assert [answer.row_index for answer in answers] == list(range(ROWS))
    given_up = [answer for answer in answers if answer.status == row_pb2.ROW_STATUS_CANCELLED]
    assert len(given_up) == ended.row_counts.cancelled > 0
    assert {(answer.text, answer.error_code) for answer in given_up} == {("", "JOB_CANCELLED")}


def test_an_orderly_stop_leaves_no_process_behind(stack: Stack) -> None:
    """Last in this file: it ends the stack."""
    for name in ("gateway", "inference", "scheduler"):
        assert stack.stop(name) == 0, stack.log_tail(name)
    wait_for(lambda: not stack.descendants(), 20, f"end of {stack.descendants()}")

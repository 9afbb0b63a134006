"""Data and leases on the real engine: an object store that is away, input that is missing or changed, a frozen worker,
pauses. One engine serves the whole module; starting anew comes last."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pytest

from tests.inference.processes import Service, World, wait_until, world
from tests.inference.rows import chat, prompt
from tidemill import segments
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.segments import ResultRow
from tidemill.tiny_model import make_tiny
from tidemill.v1 import job_pb2, model_service_pb2, row_pb2

pytestmark = [pytest.mark.engine, pytest.mark.timeout(420)]

LOAD_SECONDS = 300.0
LEASE_SECONDS = 3
SOON = 5.0
"""Two seconds where nothing else runs; a machine that is shared gets more."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    make_tiny(home / "tiny")
    with world(home, lease_seconds=str(LEASE_SECONDS), chunk_rows="64") as found:
        found.inference(f"tiny={home}/tiny", preload="tiny", part_seconds="0.3", call_rows="16")
        wait_until(lambda: loaded(found), LOAD_SECONDS)
        yield found


def loaded(stack: World) -> bool:
    report = stack.model("tiny")
    return report is not None and report.state == model_service_pb2.MODEL_STATE_LOADED


def prompts(count: int, **sampling: Any) -> list[row_pb2.Row]:
    return [prompt(f"p{index}", f"On day {index} at sea", temperature=0, **sampling) for index in range(count)]


def succeeded(stack: World, name: str) -> list[ResultRow]:
    """The results of a job that must succeed, each row exactly once and none an error."""
    job = stack.ended(name, LOAD_SECONDS)
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
    results = stack.results(name)
    assert [row.row_index for row in results] == list(range(job.row_counts.total))
    return results


def readyz(service: Service) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{service.http_address}/readyz", timeout=5) as answer:
            return json.load(answer)
    except HTTPError as answer:
        with answer:
            return json.load(answer)


def metric(service: Service, name: str) -> float:
    with urllib.request.urlopen(f"http://{service.http_address}/metrics", timeout=5) as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def logged(stack: World, event: str, job: str) -> list[dict[str, Any]]:
    lines = (stack.home / "services.inference.out").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{") and job in line]
    return [item for item in found if item["event"] == event]


def test_rows_with_one_prefix_hit_the_cache(stack: World) -> None:
    prefix = "It was a dark and stormy night. " * 20
    shared = [prompt(f"r{index}", f"{prefix}{index}", temperature=0, max_tokens=2) for index in range(20)]
    name = stack.submit(shared)
    results = succeeded(stack, name)
    assert sum(row.cached_tokens > 0 for row in results) >= 19
    usage = stack.job(name).usage
    assert usage.cached_tokens == sum(row.cached_tokens for row in results) > usage.prompt_tokens // 2
    counted = metric(stack.services[-1], 'tidemill_inference_tokens_total{kind="cached",model="tiny"}')
    assert counted >= usage.cached_tokens
    document = json.loads(stack.store.get(stack.job(name).output_manifest_key))
    assert document["usage"]["cached_tokens"] == usage.cached_tokens


def test_a_store_that_goes_away_costs_nothing_but_time(stack: World) -> None:
    service, aside = stack.services[-1], stack.home / "aside"
    rows = prompts(400, max_tokens=160)
    name = stack.submit(rows)
    wait_until(lambda: stack.job(name).row_counts.succeeded > 0)
    stack.store.root.rename(aside)
    wait_until(lambda: not readyz(service)["store"], 30)
    before = stack.job(name).row_counts
    deadline = time.monotonic() + 2 * LEASE_SECONDS
    wait_until(lambda: time.monotonic() > deadline)
    during = stack.job(name).row_counts
    assert during.succeeded - before.succeeded <= 64, "at most what was on its way"
    assert during.leased > 0, "leases outlive their time"
    assert metric(service, "tidemill_inference_store_away") == 1
    assert not stack.store.root.exists(), "nothing is written in its place"
    aside.rename(stack.store.root)
    wait_until(lambda: readyz(service)["store"], 30)
    results = succeeded(stack, name)
    assert {row.attempt for row in results} == {1}, "no attempt is lost"
    again = succeeded(stack, stack.submit(rows))
    assert [row.text for row in results] == [row.text for row in again]


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Generator[None]:
    """A file system of its own at `folder`, with room for little."""
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
    if mount.returncode:
        pytest.skip("a full file system needs the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_store_costs_nothing_but_time(stack: World) -> None:
    service, disks = stack.services[-1], contextlib.ExitStack()

    def with_small_disk(segment: Path) -> None:
        output = segment.parent.parent / "output"
        output.mkdir()
        disks.enter_context(small_disk(output, "48k"))

    with disks:
        name = stack.submit(prompts(400, max_tokens=160), spoil=with_small_disk)
        wait_until(lambda: not readyz(service)["store"], 60)
        assert stack.job(name).row_counts.succeeded > 0, "some parts had room"
        full = stack.job(name).row_counts
        deadline = time.monotonic() + 2 * LEASE_SECONDS
        wait_until(lambda: time.monotonic() > deadline)
        during = stack.job(name).row_counts
        assert during.leased > 0, "leases outlive their time"
        assert during.leased <= full.leased, "and no more are taken"
        assert metric(service, "tidemill_inference_store_away") == 1
        output = stack.store.root / f"jobs/acme/{name.rpartition('/')[2]}/output"
        subprocess.run(["mount", "-o", "remount,size=16m", str(output)], check=True)
        results = succeeded(stack, name)
        assert {row.attempt for row in results} == {1}, "no attempt is lost"
        assert not any(path.name.startswith(".") for path in output.iterdir()), "nothing half-written is left"
    wait_until(lambda: readyz(service)["store"], 30)


def test_a_store_that_hangs_stops_neither_heartbeats_nor_other_work(stack: World) -> None:
    service, aside = stack.services[-1], stack.home / "segment"

    def hang(segment: Path) -> None:
        # Whoever opens a pipe waits until somebody writes to it.
        segment.rename(aside)
        os.mkfifo(segment)

    busy = stack.submit(prompts(60, max_tokens=900))
    wait_until(lambda: stack.job(busy).row_counts.leased > 0)
    name = stack.submit(prompts(5, max_tokens=2), spoil=hang)
    wait_until(lambda: not readyz(service)["store"], 60)
    # The worker's call for work was open already, and takes what comes first.
    taken = stack.submit(prompts(5, max_tokens=2))
    wait_until(lambda: stack.job(taken).row_counts.succeeded == 5, 60)
    later = stack.submit(prompts(5, max_tokens=2))
    deadline = time.monotonic() + 2 * LEASE_SECONDS
    wait_until(lambda: time.monotonic() > deadline)
    assert stack.job(name).row_counts.leased == 5, "the lease outlives its time"
    assert stack.job(later).row_counts.pending == 5, "no lease is taken"
    wait_until(lambda: stack.job(busy).row_counts.succeeded == 60, 120)
    (segment,) = stack.stub.ListSegments(pb.ListSegmentsRequest(job=name, limit=10)).segments
    pipe, data = stack.store.path(segment.key), aside.read_bytes()
    with pipe.open("wb") as waited_for:
        aside.rename(pipe)
        waited_for.write(data)
    for job in (busy, name, taken, later):
        assert {row.attempt for row in succeeded(stack, job)} == {1}
    assert readyz(service)["store"]


@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_bad_segments_are_named_with_their_digest(stack: World, fault: str) -> None:
    def spoil(path: Path) -> None:
        if fault == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] + b"!")

    name = stack.submit(prompts(5, max_tokens=2), spoil=spoil)
    (segment,) = stack.stub.ListSegments(pb.ListSegmentsRequest(job=name, limit=10)).segments
    job = stack.ended(name, 60)
    assert (job.state, job.error_reason) == (job_pb2.JOB_STATE_FAILED, "DATA_CORRUPT")
    assert segment.key in job.error_message
    assert segment.sha256.hex() in job.error_message
    assert fault in job.error_message


def test_the_window_counts_the_chat_template(stack: World) -> None:
    window = 2048
    [plain] = succeeded(stack, stack.submit([chat("a", "x", temperature=0, max_tokens=1)]))
    template = plain.prompt_tokens - 1
    fits = "x" * (window - template - 1)
    rows = [
        chat("fits", fits, temperature=0, max_tokens=1),
        chat("long", fits + "x", temperature=0, max_tokens=1),
        prompt("as a prompt", fits + "x", temperature=0, max_tokens=1),
    ]
    results = succeeded(stack, stack.submit(rows))
    assert template > 0
    assert [row.error_code for row in results] == ["", "PROMPT_TOO_LONG", ""]
    assert results[0].prompt_tokens == window - 1
    assert str(window) in results[1].error_message


def long_answers(count: int) -> list[row_pb2.Row]:
    return [prompt(f"p{index}", f"{index}", max_tokens=1900) for index in range(count)]


def engine_seconds(service: Service) -> float:
    """Processor time of the engine's core so far."""
    for process in psutil.Process(service.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "EngineCore" in " ".join(process.cmdline()):
                used = process.cpu_times()
                return used.user + used.system
    raise AssertionError("there is no engine")


def works(service: Service) -> bool:
    """Whether the engine does anything in a second and a half."""
    before, until = engine_seconds(service), time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > until)
    return engine_seconds(service) - before > 0.1


def test_a_paused_job_leaves_the_engine(stack: World) -> None:
    service, name = stack.services[-1], stack.submit(long_answers(128))
    wait_until(lambda: stack.job(name).row_counts.leased > 0 and works(service))
    began = time.monotonic()
    stack.stub.PauseJob(pb.PauseJobRequest(job=name))
    wait_until(lambda: logged(stack, "rows aborted", name), 60)
    assert time.monotonic() - began < SOON, "it stops within two seconds"
    wait_until(lambda: not stack.job(name).row_counts.leased, 60)
    assert stack.job(name).state == job_pb2.JOB_STATE_PAUSED
    wait_until(lambda: not works(service), 60)
    stack.stub.ResumeJob(pb.ResumeJobRequest(job=name))
    assert {row.attempt for row in succeeded(stack, name)} == {1}


@pytest.mark.parametrize("how", ["requeue", "cancel"])
def test_rows_taken_away_leave_the_engine(stack: World, how: str) -> None:
    service, name = stack.services[-1], stack.submit(long_answers(64))
    wait_until(lambda: stack.job(name).row_counts.leased > 0 and works(service))
    began = time.monotonic()
    if how == "requeue":
        stack.stub.RequeueChunk(pb.RequeueChunkRequest(job=name, row_index=0))
    else:
        stack.stub.CancelJob(pb.CancelJobRequest(job=name))
    wait_until(lambda: logged(stack, "rows aborted", name), 60)
    assert time.monotonic() - began < SOON, "they stop within two seconds"
    stack.stub.CancelJob(pb.CancelJobRequest(job=name))
    wait_until(lambda: not works(service), 60)
    assert stack.ended(name, 60).state == job_pb2.JOB_STATE_CANCELLED


def test_progress_shows_every_second(stack: World) -> None:
    name = stack.submit(prompts(600, max_tokens=100))
    seen: list[tuple[float, records_pb2.JobRecord]] = []
    for snapshot in stack.stub.WatchJob(pb.WatchJobRequest(job=name)):
        seen.append((time.monotonic(), snapshot.job))
    counts = [(at, job.row_counts.succeeded, job.usage.output_tokens) for at, job in seen]
    moves = [now for then, now in itertools.pairwise(counts) if now[1] > then[1] and now[2] > then[2]]
    assert len(moves) >= 3
    assert max(later[0] - earlier[0] for earlier, later in itertools.pairwise(moves)) < SOON


def test_a_worker_frozen_past_its_lease_commits_nothing(stack: World) -> None:
    process = stack.services[-1].process
    rows = prompts(400, max_tokens=160)
    name = stack.submit(rows)
    wait_until(lambda: stack.job(name).row_counts.succeeded > 0)
    process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: not stack.job(name).row_counts.leased, 30)
        frozen = stack.job(name).row_counts
    finally:
        process.send_signal(signal.SIGCONT)
    assert frozen.pending > 0
    results = succeeded(stack, name)
    fences = {part.fence for part in stack.stub.ListParts(pb.ListPartsRequest(job=name, limit=1000)).parts}
    refused = [key for key in written(stack, name) if key not in named(stack, name)]
    assert refused, "what it had done was offered, and refused"
    assert len(fences) > 1
    again = succeeded(stack, stack.submit(rows))
    assert [row.text for row in results] == [row.text for row in again]


def written(stack: World, name: str) -> list[str]:
    folder = f"jobs/acme/{name.rpartition('/')[2]}/output"
    return [key for key in stack.store.keys(folder) if key.endswith(".parquet")]


def named(stack: World, name: str) -> set[str]:
    return {part.key for part in stack.stub.ListParts(pb.ListPartsRequest(job=name, limit=1000)).parts}


def test_a_store_that_is_away_at_the_start_is_waited_for(stack: World) -> None:
    aside = stack.home / "aside"
    stack.services[-1].stop(90)
    stack.store.root.rename(aside)
    service = stack.inference(f"tiny={stack.home}/tiny")
    assert wait_until(lambda: readyz(service), 30)["store"] is False
    aside.rename(stack.store.root)
    wait_until(lambda: readyz(service)["ready"], 60)
    assert list(segments.read_batches(stack.store, named_segment(stack)))


def named_segment(stack: World) -> str:
    name = stack.submit(prompts(1, max_tokens=2))
    (segment,) = stack.stub.ListSegments(pb.ListSegmentsRequest(job=name, limit=10)).segments
    return segment.key

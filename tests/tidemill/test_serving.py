"""The shared server as a real process, driven over its real ports."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tidemill.errors import Reason
from tidemill.status import from_rpc_error
from tidemill.v1 import job_service_pb2, job_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc

SCRIPT = Path(__file__).with_name("echo_server.py")


class Running:
    """The process, its addresses and a channel to it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        ready_file = folder / "ready.json"
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(ready_file), str(folder / "telemetry")],
            env={**os.environ, **environment},
        )
        deadline = time.monotonic() + 30
        while not ready_file.exists():
            assert self.process.poll() is None, "the server ended at its start"
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.02)
        ready = json.loads(ready_file.read_text())
        self.address, self.http = ready["address"], ready["http_address"]
        self.channel = grpc.insecure_channel(self.address)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.channel.close()
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


def failure(call: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value)


def test_health_answers_over_grpc_and_http(server: Running) -> None:
    health: Any = health_pb2_grpc.HealthStub(server.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="tidemill.v1.JobService"), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert server.get("/healthz")[0] == 200
    assert json.loads(server.get("/readyz")[1]) == {"ready": True, "answers": 42}
    assert server.get("/other")[0] == 404


def test_typed_errors_reach_the_client(server: Running) -> None:
    jobs: Any = job_service_pb2_grpc.JobServiceStub(server.channel)
    error = failure(lambda: jobs.GetJob(job_service_pb2.GetJobRequest(name="typed"), timeout=10))
    assert (error.reason, error.message) == (Reason.JOB_NOT_FOUND, "no such job")
    stream = jobs.WatchJob(job_service_pb2.WatchJobRequest(name="typed"), timeout=10)
    assert next(stream).revision == 1
    assert failure(lambda: next(stream)).reason is Reason.JOB_TERMINAL


def test_a_fault_of_ours_does_not_show_its_insides(server: Running) -> None:
    jobs: Any = job_service_pb2_grpc.JobServiceStub(server.channel)
    error = failure(lambda: jobs.GetJob(job_service_pb2.GetJobRequest(name="bug"), timeout=10))
    assert error.reason is Reason.INTERNAL
    assert "secret" not in error.message


def test_calls_are_counted_and_traced(server: Running) -> None:
    models: Any = model_service_pb2_grpc.ModelServiceStub(server.channel)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    parent = f"00-{trace_id}-b7ad6b7169203331-01"
    models.ListModels(model_service_pb2.ListModelsRequest(), timeout=10, metadata=[("traceparent", parent)])
    metrics = server.get("/metrics")[1]
    assert 'tidemill_rpc_total{code="OK",method="/tidemill.v1.ModelService/ListModels"} 1.0' in metrics
    assert server.stop() == 0
    lines = (server.folder / "telemetry" / "echo.spans.jsonl").read_text().splitlines()
    spans = [json.loads(line) for line in lines]
    ours = [span for span in spans if span["context"]["trace_id"] == f"0x{trace_id}"]
    # The second span is that of the call which the handler made to itself: the context travelled on.
    assert [span["name"] for span in ours] == ["tidemill.v1.JobService/ListJobs", "tidemill.v1.ModelService/ListModels"]


@pytest.mark.parametrize(("begins", "names"), [("yes", {"WatchJob", "GetJob"}), ("no", {"GetJob"})])
def test_only_who_begins_traces_keeps_spans_of_untraced_calls(tmp_path: Path, begins: str, names: set[str]) -> None:
    running = Running(tmp_path, ECHO_TRACES=begins)
    try:
        jobs: Any = job_service_pb2_grpc.JobServiceStub(running.channel)
        failure(lambda: list(jobs.WatchJob(job_service_pb2.WatchJobRequest(name="typed"), timeout=10)))
        traced = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
        failure(lambda: jobs.GetJob(job_service_pb2.GetJobRequest(name="typed"), timeout=10, metadata=traced))
        assert running.stop() == 0
    finally:
        running.channel.close()
        running.process.kill()
        running.process.wait()
    lines = (tmp_path / "telemetry" / "echo.spans.jsonl").read_text().splitlines()
    assert {json.loads(line)["name"].rpartition("/")[2] for line in lines} == names


def test_the_caller_s_deadline_is_passed_on(server: Running) -> None:
    models: Any = model_service_pb2_grpc.ModelServiceStub(server.channel)
    answer = models.ListModels(model_service_pb2.ListModelsRequest(), timeout=5)
    assert 3 < float(answer.next_page_token) < 5


def test_drain_lets_open_streams_finish(server: Running) -> None:
    jobs: Any = job_service_pb2_grpc.JobServiceStub(server.channel)
    stream = jobs.WatchJob(job_service_pb2.WatchJobRequest(name="until-drain"), timeout=30)
    assert next(stream).revision == 1
    server.process.send_signal(signal.SIGTERM)
    assert next(stream).revision == 2
    assert list(stream) == []
    assert server.process.wait(timeout=20) == 0


def test_a_dead_collector_slows_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    try:
        models: Any = model_service_pb2_grpc.ModelServiceStub(running.channel)
        models.ListModels(model_service_pb2.ListModelsRequest(), timeout=5)
        assert running.stop() == 0
    finally:
        running.channel.close()
        running.process.kill()
        running.process.wait()

"""The real scheduler and inference processes, and jobs put straight into them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc

from tests.inference.rows import input_row
from tests.stores import folder_store
from tidemill import digests, manifest, names, segments
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2_grpc
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.merkle import Frontier
from tidemill.store.local import LocalStore
from tidemill.v1 import job_pb2, row_pb2

TENANT = "acme"
T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], seconds: float = 120.0) -> T:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {condition}")


@dataclass
class Service:
    """A process of ours with its addresses."""

    process: subprocess.Popen[bytes]
    address: str
    http_address: str

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(10)


def start(module: str, home: Path, settings: Mapping[str, str], seconds: float = 240.0) -> Service:
    """Start `python -m module` and wait for its ready file."""
    ready = home / f"{module}.{time.monotonic_ns()}.ready"
    environment = {**os.environ, "TIDEMILL_HOME": str(home), "TIDEMILL_READY_FILE": str(ready), **settings}
    with (home / f"{module}.out").open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", module], env=environment, stdout=output, stderr=output)

    def addresses() -> Any:
        assert process.poll() is None, (home / f"{module}.out").read_text()[-3000:]
        return ready.exists() and json.loads(ready.read_text())

    found = wait_until(addresses, seconds)
    return Service(process, found["address"] or "", found["http_address"])


@dataclass
class World:
    """A scheduler, an object store and jobs; inference processes come and go."""

    home: Path
    scheduler: Service
    store: LocalStore
    stub: Any
    services: list[Service] = field(default_factory=list[Service])

    def inference(self, models: str, module: str = "services.inference", **settings: str) -> Service:
        """Start an inference process for `models`."""
        named = {f"TIDEMILL_INFERENCE_{key.upper()}": value for key, value in settings.items()}
        base = {
            "TIDEMILL_INFERENCE_SCHEDULER": self.scheduler.address,
            "TIDEMILL_INFERENCE_HTTP_ADDRESS": "127.0.0.1:0",
            "TIDEMILL_INFERENCE_STORE": self.store.root.as_uri(),
            "TIDEMILL_INFERENCE_MODELS": models,
            "TIDEMILL_INFERENCE_KV_CACHE_BYTES": str(128 << 20),
        }
        service = start(module, self.home, {**base, **named})
        self.services.append(service)
        return service

    def model(self, model: str) -> records_pb2.ModelReport | None:
        """What the scheduler knows of a model."""
        found = self.stub.ListModels(pb.ListModelsRequest()).models
        return next((item for item in found if item.model == model), None)

    def submit(
        self,
        rows: Sequence[row_pb2.Row],
        *,
        model: str = "tiny",
        sampling: row_pb2.SamplingParams | None = None,
        mode: Any = job_pb2.EXECUTION_MODE_SHARED,
        traceparent: str = "",
        spoil: Callable[[Path], None] | None = None,
    ) -> str:
        """Create, fill and seal a job; its name. `spoil` gets its input segment before the seal."""
        name = str(names.JobName(TENANT, names.new_job_id()))
        spec = records_pb2.JobSpec(
            name=name, tenant=TENANT, model=model, sampling=sampling, execution_mode=mode, traceparent=traceparent
        )
        spec.complete_by_time.FromSeconds(int(time.time()) + 3600)
        self.stub.CreateJob(pb.CreateJobRequest(spec=spec))
        stored = [input_row(index, row) for index, row in enumerate(rows)]
        frontier = Frontier().extend([row.digest for row in stored])
        segment = self._write(name, stored, frontier)
        if spoil:
            spoil(self.store.path(segment.key))
        version = digests.data_version(digests.INPUT_SPEC, len(rows), frontier.root())
        key = self._manifest(name, segment, frontier, version)
        self.stub.SealJob(
            pb.SealJobRequest(
                job=name, row_count=len(rows), input_data_version=version, input_manifest_key=key, dataset="set"
            )
        )
        return name

    def _write(self, name: str, rows: Sequence[segments.InputRow], frontier: Frontier) -> records_pb2.SegmentRef:
        writer = self.stub.OpenWriter(pb.OpenWriterRequest(job=name))
        key = f"{names.parse_job(name).prefix}/input/{0:012d}-{writer.writer_epoch}.parquet"
        file = segments.write_segment(self.store, key, segments.input_table(rows))
        segment = records_pb2.SegmentRef(
            key=key, start=0, count=len(rows), sha256=file.sha256, size_bytes=file.size_bytes
        )
        self.stub.CommitSegment(
            pb.CommitSegmentRequest(
                job=name, writer_epoch=writer.writer_epoch, segment=segment, merkle_frontier=frontier.peaks
            )
        )
        return segment

    def _manifest(self, name: str, segment: records_pb2.SegmentRef, frontier: Frontier, version: bytes) -> str:
        entry = manifest.SegmentEntry(key=segment.key, sha256=segment.sha256.hex(), start=0, rows=segment.count)
        document = manifest.InputManifest(
            job=name,
            row_count=frontier.count,
            merkle_root=frontier.root().hex(),
            data_version=version.hex(),
            segments=(entry,),
        )
        key = f"{names.parse_job(name).prefix}/input/manifest.json"
        self.store.put(key, manifest.encode(document))
        return key

    def job(self, name: str) -> records_pb2.JobRecord:
        """The job now."""
        return self.stub.GetJob(pb.GetJobRequest(job=name))

    def ended(self, name: str, seconds: float = 120.0) -> records_pb2.JobRecord:
        """The job once it is terminal."""
        terminal = {"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"}

        def check() -> records_pb2.JobRecord | None:
            job = self.job(name)
            return job if job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_") in terminal else None

        return wait_until(check, seconds)

    def results(self, name: str) -> list[segments.ResultRow]:
        """All result rows by index."""
        parts = self.stub.ListParts(pb.ListPartsRequest(job=name, limit=1000)).parts
        tables = [segments.read_segment(self.store, part.key, sha256=part.sha256) for part in parts]
        rows = [row for table in tables for row in segments.result_rows(table)]
        return sorted(rows, key=lambda row: row.row_index)


@contextlib.contextmanager
def world(home: Path, **settings: str) -> Generator[World]:
    """A scheduler on a memory ledger, and nothing left of anything at the end."""
    named = {f"TIDEMILL_SCHEDULER_{key.upper()}": value for key, value in settings.items()}
    base = {
        "TIDEMILL_SCHEDULER_ADDRESS": "127.0.0.1:0",
        "TIDEMILL_SCHEDULER_HTTP_ADDRESS": "127.0.0.1:0",
        "TIDEMILL_SCHEDULER_LEDGER": "memory:",
    }
    scheduler = start("services.scheduler", home, {**base, **named})
    channel = grpc.insecure_channel(scheduler.address)
    stub = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)
    found = World(home, scheduler, folder_store(home / "store"), stub)
    try:
        yield found
    finally:
        for service in found.services:
            if service.process.poll() is None:
                service.stop()
        channel.close()
        scheduler.stop()

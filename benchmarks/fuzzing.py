"""A fuzzer's rounds: fresh jobs, then calls until the time is over; what was found is made small and kept."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import FlakyFailure

from benchmarks.fuzz_calls import Call, FindingError, Line, calls
from benchmarks.fuzz_examples import FreshJobs
from tidemill.client import Client
from tidemill.internal.v1 import scheduler_service_pb2
from tidemill.v1 import admin_service_pb2, job_service_pb2, model_service_pb2, quota_service_pb2

__all__ = ["Tally", "Target", "fresh_jobs", "fuzz", "public_services", "scheduler_services"]

CALLS_A_ROUND = 200


def public_services() -> list[ServiceDescriptor]:
    """Those of the gateway; that of jobs, which has most methods, more often."""
    jobs = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
    models = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
    admin = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]
    quotas = quota_service_pb2.DESCRIPTOR.services_by_name["QuotaService"]
    return [jobs, jobs, jobs, models, jobs, quotas, jobs, admin]


def scheduler_services() -> list[ServiceDescriptor]:
    """What gateways and workers call."""
    return [scheduler_service_pb2.DESCRIPTOR.services_by_name["SchedulerService"]]


def fresh_jobs(client: Client, model: str) -> FreshJobs:
    """Jobs in several states, for a model that is neither drained nor pinned. The key must be an operator's."""
    client.admin.undrain(model)
    client.admin.unpin(model)
    receiving, filled, ended = (client.create(client.new_job(model=model))[0] for _ in range(3))
    client.append(filled, [f"question {number}" for number in range(20)])
    ended.cancel()
    queued = client.submit([f"question {number}" for number in range(30)], model=model)
    return FreshJobs(model, receiving.name, filled.name, queued.name, ended.name)


@dataclass(frozen=True)
class Target:
    """Services behind one connection; `fresh` makes the jobs that a round begins with."""

    line: Line
    services: Sequence[ServiceDescriptor]
    fresh: Callable[[], FreshJobs]
    without: Sequence[str] = ()


@dataclass
class Tally:
    """What was done.

    Attributes:
        findings: words of each finding, with the file that repeats its call.
    """

    calls: int = 0
    seeds: list[int] = field(default_factory=list[int])
    findings: list[str] = field(default_factory=list[str])


def fuzz(target: Target, seconds: float, first_seed: int, folder: Path) -> Tally:
    """Make calls for so long, in rounds whose seeds count up from `first_seed`; findings are dumped into `folder`."""
    tally, end = Tally(), time.monotonic() + seconds
    while time.monotonic() < end:
        number = first_seed + len(tally.seeds)
        tally.seeds.append(number)
        failed: list[Call] = []
        try:
            _round(target, number, end, tally, failed)
        except (FindingError, FlakyFailure) as exc:
            # A finding that depends on what was sent before shrinks no further than it repeats.
            path = folder / f"fuzz-{number}.json"
            path.write_text(failed[-1].dump())
            tally.findings.append(f"seed {number}: {_words(exc)}; python -m benchmarks.fuzz --repeat {path}")
    return tally


def _round(target: Target, number: int, end: float, tally: Tally, failed: list[Call]) -> None:
    service = target.services[number % len(target.services)]

    @seed(number)
    @settings(
        max_examples=CALLS_A_ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
            HealthCheck.large_base_example,
        ],
        print_blob=False,
    )
    @given(calls(service, target.fresh(), target.without))
    def one(call: Call) -> None:
        # Once the time is over the rest of the round is drawn, which takes a moment, and not sent.
        if time.monotonic() > end and not failed:
            return
        tally.calls += 1
        try:
            target.line.make(call)
        except FindingError:
            failed.append(call)
            raise

    one()


def _words(exc: BaseException) -> str:
    if isinstance(exc, FlakyFailure):
        return "not always: " + "; ".join(str(each) for each in exc.exceptions)
    return str(exc)

"""Pause, resume, update, delete, estimate and explain, through the real scheduler."""

import time
from typing import Any

import pytest
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2

from tests.gateway.client import GatewayClient, pb, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tests.gateway.waiting import eventually
from tidemill.errors import TidemillError
from tidemill.v1 import job_pb2, job_service_pb2

MISSING = "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
TERMS: dict[str, Any] = {
    "service_class": job_pb2.SERVICE_CLASS_URGENT,
    "on_deadline": job_pb2.DEADLINE_POLICY_EXPIRE,
    "escalation": job_pb2.Escalation(raise_class=True),
    "accept_at_risk": True,
}


async def queued(client: GatewayClient, worker: FakeWorker, rows: int = 60, **fields: Any) -> job_pb2.Job:
    return await client.submit(job_pb2.Job(model=worker.model, **fields), [prompts(0, rows)])


async def pause(client: GatewayClient, name: str) -> job_pb2.Job:
    return await client.unary(client.jobs.PauseJob, pb.PauseJobRequest(name=name))


async def resume(client: GatewayClient, name: str) -> job_pb2.Job:
    return await client.unary(client.jobs.ResumeJob, pb.ResumeJobRequest(name=name))


async def update(client: GatewayClient, name: str, **fields: Any) -> job_pb2.Job:
    mask = field_mask_pb2.FieldMask(paths=list(fields))
    request = pb.UpdateJobRequest(job=job_pb2.Job(name=name, **fields), update_mask=mask)
    return await client.unary(client.jobs.UpdateJob, request)


async def estimate(client: GatewayClient, **fields: Any) -> job_service_pb2.EstimateJobResponse:
    return await client.unary(client.jobs.EstimateJob, pb.EstimateJobRequest(**fields))


async def test_terms_come_back_as_they_were_given(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model, **TERMS)
    for name, value in TERMS.items():
        assert getattr(job, name) == value
    common = await client.create(worker.model)
    assert common.service_class == job_pb2.SERVICE_CLASS_STANDARD
    assert common.on_deadline == job_pb2.DEADLINE_POLICY_RUN_LATE
    for item in (job, common):
        await client.cancel(item.name)


async def test_a_paused_job_gets_no_work_until_it_is_resumed(client: GatewayClient, worker: FakeWorker) -> None:
    job = await queued(client, worker)
    paused = await pause(client, job.name)
    assert (paused.state, paused.pause.reason) == (job_pb2.JOB_STATE_PAUSED, "PAUSED_BY_OWNER")
    assert await pause(client, job.name) == paused
    assert await worker.chunks(job.name) == []
    resumed = await resume(client, job.name)
    assert resumed.state == job_pb2.JOB_STATE_QUEUED
    assert not resumed.HasField("pause")
    assert await resume(client, job.name) == resumed
    await worker.end(job.name)
    assert (await client.get(job.name)).row_counts.succeeded == 60


async def test_jobs_that_cannot_be_paused(client: GatewayClient, worker: FakeWorker) -> None:
    receiving = await client.create(worker.model)
    for verb in (pause, resume):
        with refused("JOB_NOT_PAUSABLE"):
            await verb(client, receiving.name)
        with refused("JOB_NOT_FOUND"):
            await verb(client, MISSING)
    await client.cancel(receiving.name)


async def test_an_update_changes_what_its_mask_names(client: GatewayClient, worker: FakeWorker) -> None:
    job = await queued(client, worker, **TERMS)
    moment = timestamp_pb2.Timestamp(seconds=int(time.time()) + 3600)
    changed = await update(client, job.name, complete_by_time=moment, service_class=job_pb2.SERVICE_CLASS_FLEX)
    assert (changed.complete_by_time, changed.service_class) == (moment, job_pb2.SERVICE_CLASS_FLEX)
    assert (changed.on_deadline, changed.escalation) == (TERMS["on_deadline"], TERMS["escalation"])
    assert changed.revision > job.revision
    window = await update(client, job.name, completion_window=duration_pb2.Duration(seconds=7200))
    assert window.complete_by_time.ToSeconds() == pytest.approx(time.time() + 7200, abs=30)
    policies = await update(client, job.name, on_deadline=1, escalation=job_pb2.Escalation())
    assert (policies.on_deadline, policies.escalation) == (1, job_pb2.Escalation())
    assert await client.get(job.name) == policies
    await worker.end(job.name)
    with refused("JOB_TERMINAL"):
        await update(client, job.name, service_class=1)


async def test_a_bad_update_changes_nothing(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    with refused("INVALID_ARGUMENT") as caught:
        await update(client, job.name, labels={"a": "b"})
    assert [item.field for item in caught.value.violations] == ["update_mask"]
    with refused("DEADLINE_OUT_OF_RANGE"):
        await update(client, job.name, completion_window=duration_pb2.Duration(seconds=5))
    assert await client.get(job.name) == job
    await client.cancel(job.name)


async def test_estimates_of_imagined_and_of_real_jobs(client: GatewayClient, worker: FakeWorker) -> None:
    worker.busy_seconds = 1.0
    job = await queued(client, worker, 200)
    await worker.end(job.name)
    imagined = await estimate(client, job=job_pb2.Job(model=worker.model), row_count=1000)
    assert imagined.feasible
    assert imagined.start_time.ToNanoseconds() <= imagined.eta_p50_time.ToNanoseconds()
    assert imagined.eta_p50_time.ToNanoseconds() <= imagined.eta_p90_time.ToNanoseconds()
    assert imagined.engine_seconds > 0
    assert "1000 rows" in imagined.basis
    twice = await estimate(client, job=job_pb2.Job(model=worker.model), row_count=2000)
    assert twice.engine_seconds == pytest.approx(2 * imagined.engine_seconds, rel=0.01)
    longer = await estimate(
        client,
        job=job_pb2.Job(model=worker.model),
        row_count=1000,
        prompt_tokens_per_row=5000,
        output_tokens_per_row=500,
    )
    assert longer.engine_seconds > imagined.engine_seconds
    waiting = await queued(client, worker, 100)
    real = await estimate(client, job=job_pb2.Job(name=waiting.name))
    assert "100 rows" in real.basis
    await worker.end(waiting.name)


async def test_a_model_without_workers_has_no_times(client: GatewayClient) -> None:
    found = await estimate(client, job=job_pb2.Job(model="nobody-offers-this"), row_count=1)
    assert not found.HasField("start_time")
    assert not found.HasField("eta_p90_time")
    assert "no live worker" in found.basis


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"job": job_pb2.Job(model="m")}, "INVALID_ARGUMENT", "row_count"),
        ({"job": job_pb2.Job(model="m"), "row_count": -1}, "INVALID_ARGUMENT", "row_count"),
        ({"job": job_pb2.Job(), "row_count": 1}, "INVALID_ARGUMENT", "job.model"),
        (
            {"job": job_pb2.Job(model="m"), "row_count": 1, "prompt_tokens_per_row": -1},
            "INVALID_ARGUMENT",
            "prompt_tokens_per_row",
        ),
        ({"job": job_pb2.Job(name=MISSING, model="m")}, "INVALID_ARGUMENT", "job.model"),
        (
            {"job": job_pb2.Job(model="m", completion_window=duration_pb2.Duration(seconds=1)), "row_count": 1},
            "DEADLINE_OUT_OF_RANGE",
            "job.completion_window",
        ),
    ],
)
async def test_bad_estimates(client: GatewayClient, fields: dict[str, Any], reason: str, field: str) -> None:
    with refused(reason) as caught:
        await estimate(client, **fields)
    assert [item.field for item in caught.value.violations] == [field]


async def test_a_deadline_that_cannot_hold_is_refused_or_accepted_at_risk(
    client: GatewayClient, worker: FakeWorker
) -> None:
    worker.busy_seconds = 1000.0
    await worker.end((await queued(client, worker, 200)).name)
    minute = duration_pb2.Duration(seconds=60)
    job = await client.create(worker.model, completion_window=minute)
    await client.fill(job.name, prompts(0, 200))
    with refused("DEADLINE_INFEASIBLE") as caught:
        await client.seal(job.name, 200)
    earliest = timestamp_pb2.Timestamp()
    earliest.FromJsonString(caught.value.metadata["earliest_feasible_time"])
    assert earliest.ToSeconds() > job.complete_by_time.ToSeconds()
    assert (await client.get(job.name)).state == job_pb2.JOB_STATE_RECEIVING
    later = timestamp_pb2.Timestamp(seconds=earliest.ToSeconds() + 3600)
    await update(client, job.name, complete_by_time=later)
    sealed = await client.seal(job.name, 200)
    assert (sealed.state, sealed.admitted_at_risk) == (job_pb2.JOB_STATE_QUEUED, False)
    await client.cancel(job.name)
    risky = await client.submit(
        job_pb2.Job(model=worker.model, completion_window=minute, accept_at_risk=True), [prompts(0, 200)]
    )
    assert risky.admitted_at_risk
    known = await eventually(lambda: client.get(risky.name), lambda item: item.sla_state == job_pb2.SLA_STATE_AT_RISK)
    assert known.HasField("eta_p90_time")
    await client.cancel(risky.name)


async def explain(client: GatewayClient, name: str) -> job_service_pb2.ExplainJobResponse:
    return await client.unary(client.jobs.ExplainJob, pb.ExplainJobRequest(name=name))


async def test_a_job_says_what_it_waits_for(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    receiving = await explain(client, job.name)
    assert (receiving.cause, receiving.job) == (pb.WAIT_CAUSE_ROWS, await client.get(job.name))
    await client.fill(job.name, prompts(0, 60))
    await client.seal(job.name, 60)
    await pause(client, job.name)
    paused = await explain(client, job.name)
    assert paused.cause == pb.WAIT_CAUSE_PAUSED
    assert paused.message
    assert paused.remedies
    await resume(client, job.name)
    held = await worker.chunks(job.name)
    running = await explain(client, job.name)
    assert (running.cause, running.chunks_leased) == (pb.WAIT_CAUSE_UNSPECIFIED, len(held))
    for lease in held:
        await worker.commit(lease, range(lease.chunk_start, lease.chunk_start + lease.chunk_rows))
    await worker.end(job.name)
    assert (await explain(client, job.name)).cause == pb.WAIT_CAUSE_UNSPECIFIED
    with refused("JOB_NOT_FOUND"):
        await explain(client, MISSING)


async def test_quotas_are_told_with_their_figures(thrifty: GatewayClient, worker: FakeWorker) -> None:
    first = await thrifty.create(worker.model)
    with refused("QUOTA_EXCEEDED") as caught:
        await thrifty.create(worker.model)
    assert caught.value.metadata["quota"] == "jobs"
    assert caught.value.metadata["limit"] == "1"
    assert caught.value.retry_after
    await thrifty.cancel(first.name)
    with refused("QUOTA_EXCEEDED") as caught:
        await queued(thrifty, worker, 31)
    assert caught.value.metadata["quota"] == "rows"
    # The refused submission is cancelled in the background.
    kept = await eventually(lambda: queued_or_none(thrifty, worker), bool)
    assert kept is not None
    await thrifty.cancel(kept.name)


async def queued_or_none(client: GatewayClient, worker: FakeWorker) -> job_pb2.Job | None:
    try:
        return await queued(client, worker, 30)
    except TidemillError as exc:
        if exc.metadata.get("quota") != "jobs":
            raise
        return None


async def delete(client: GatewayClient, name: str) -> job_service_pb2.DeleteJobResponse:
    return await client.unary(client.jobs.DeleteJob, pb.DeleteJobRequest(name=name))


async def test_a_deleted_job_is_hidden_at_once(client: GatewayClient, worker: FakeWorker) -> None:
    job = await queued(client, worker)
    with refused("JOB_NOT_TERMINAL"):
        await delete(client, job.name)
    await worker.end(job.name)
    deleted = await delete(client, job.name)
    assert deleted.purge_time.ToSeconds() == pytest.approx(time.time() + 86400, abs=60)
    assert await delete(client, job.name) == deleted
    for call in (pause, explain, GatewayClient.get, GatewayClient.results):
        with refused("JOB_NOT_FOUND"):
            await call(client, job.name)
    page = await client.unary(client.jobs.ListJobs, pb.ListJobsRequest(page_size=1000))
    assert job.name not in [item.name for item in page.jobs]

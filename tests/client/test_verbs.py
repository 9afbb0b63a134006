"""The verbs of a job and the operator's calls, by the client against the real gateway and scheduler."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.client.service import Service
from tidemill.client import Client, JobHandle, state_name
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2


def refused(act: Callable[[], Any]) -> TidemillError:
    with pytest.raises(TidemillError) as caught:
        act()
    return caught.value


def waiting(service: Service, client: Client) -> JobHandle:
    """A job that no worker takes."""
    return client.submit(["a", "b"], model=service.idle_model(), service_class="flex", escalate=["raise_class"])


def test_pause_and_resume(service: Service, client: Client) -> None:
    job = waiting(service, client)
    assert state_name(job.pause()) == "PAUSED"
    assert job.get().pause.reason == "PAUSED_BY_OWNER"
    assert state_name(job.resume()) == "QUEUED"
    job.cancel()
    job.wait(timeout=30)


def test_an_update_changes_what_is_given(service: Service, client: Client) -> None:
    job = waiting(service, client)
    urgent = job.update(service_class="urgent", escalate=[])
    assert urgent.service_class == job_pb2.SERVICE_CLASS_URGENT
    assert urgent.escalation == job_pb2.Escalation()
    assert urgent.complete_by_time == job.get().complete_by_time
    assert job.update(deadline="3h").complete_by_time.ToSeconds() == pytest.approx(time.time() + 3 * 3600, abs=60)
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    error = refused(lambda: job.update(deadline=moment))
    assert (error.reason, error.violations[0].field) == (Reason.DEADLINE_OUT_OF_RANGE, "job.complete_by_time")
    assert refused(job.update).violations[0].field == "update_mask"
    job.cancel()
    job.wait(timeout=30)
    assert refused(lambda: job.update(on_deadline="expire")).reason is Reason.JOB_TERMINAL


def test_failed_rows_are_asked_again(service: Service, client: Client) -> None:
    rows = [{"prompt": "x", "custom_id": f"{'fail' if number % 3 else 'good'}-{number}"} for number in range(9)]
    job = client.submit(rows, model=service.model)
    assert refused(waiting(service, client).retry_failed_rows).reason is Reason.JOB_NOT_TERMINAL
    assert job.wait(timeout=30).row_counts.failed == 6
    again = job.retry_failed_rows(deadline="30m", request_id="again")
    assert job.retry_failed_rows(deadline=timedelta(minutes=30), request_id="again").name == again.name
    assert again.get().retry_of == job.name
    asked = [result.custom_id for result in again.results()]
    assert asked == [row["custom_id"] for row in rows if row["custom_id"].startswith("fail")]
    good = client.submit(["a"], model=service.model)
    good.wait(timeout=30)
    assert refused(good.retry_failed_rows).reason is Reason.NO_FAILED_ROWS


@pytest.mark.parametrize("request_id", ["", "kept"])
def test_a_retry_that_fails_is_kept_under_a_request_id_only(service: Service, client: Client, request_id: str) -> None:
    job = client.submit([{"prompt": "x", "custom_id": "fail-1"}], model=service.model)
    job.wait(timeout=30)
    for path in (service.stack.home / "store" / "jobs" / "dev" / job.name.rpartition("/")[2] / "input").glob(
        "*.parquet"
    ):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    error = refused(lambda: job.retry_failed_rows(request_id=request_id))
    assert error.reason is Reason.DATA_CORRUPT
    left = client.job(error.metadata["unsealed_job"])
    assert left.get().retry_of == job.name
    if request_id:
        assert state_name(left.get()) == "RECEIVING"
        left.cancel()
    assert state_name(left.wait(timeout=30)) == "CANCELLED"


def test_estimates(service: Service, client: Client) -> None:
    imagined = client.estimate(100, model=service.model, output_tokens=50, deadline="2h", service_class="urgent")
    assert "100 rows" in imagined.basis
    assert "2 rows" in waiting(service, client).estimate().basis
    assert refused(lambda: client.estimate(0, model=service.model)).violations[0].field == "row_count"


def test_the_operator_s_calls(service: Service, client: Client) -> None:
    job = waiting(service, client)
    assert refused(lambda: client.admin.force_fail(job.name, "no")).reason is Reason.PERMISSION_DENIED
    with service.client(service.key_of("operator", admin=True)) as operator:
        assert refused(lambda: operator.admin.requeue_chunk(job.name, 0)).reason is Reason.CHUNK_NOT_LEASED
        operator.admin.force_fail(job.name, "it was in the way")
        ended = job.wait(timeout=30)
        assert state_name(ended) == "FAILED"
        assert "it was in the way" in ended.error.message


def test_the_operator_changes_models(service: Service, client: Client) -> None:
    model = service.idle_model()
    assert refused(lambda: client.admin.drain(model)).reason is Reason.PERMISSION_DENIED
    with service.client(service.key_of("operator", admin=True)) as operator:
        assert operator.admin.drain(model).drained
        assert not operator.admin.undrain(model).drained
        assert operator.admin.pin(model).pinned
        assert not operator.admin.unpin(model).pinned


def test_a_job_explains_itself(service: Service, client: Client) -> None:
    job = waiting(service, client)
    job.pause()
    paused = job.explain()
    assert paused.cause == job_service_pb2.WAIT_CAUSE_PAUSED
    assert paused.job.name == job.name
    assert paused.remedies


def test_a_deleted_job_is_gone(service: Service, client: Client) -> None:
    job = client.submit(["a"], model=service.model)
    job.wait(timeout=30)
    when = job.delete()
    assert timedelta(hours=23) < when - datetime.now(UTC) < timedelta(hours=25)
    assert job.delete() == when
    for act in (job.get, job.explain, lambda: list(job.results())):
        assert refused(act).reason is Reason.JOB_NOT_FOUND
    assert job.name not in [item.name for item in client.jobs()]
    assert refused(waiting(service, client).delete).reason is Reason.JOB_NOT_TERMINAL

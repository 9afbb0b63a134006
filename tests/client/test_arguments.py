"""What Python programs may pass, and how wrong arguments are refused before anything is sent."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tidemill.client import Client
from tidemill.client.rows import to_rows
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2, row_pb2


@pytest.fixture
def client() -> Iterator[Client]:
    with Client("127.0.0.1:1", "key") as opened:
        yield opened


@pytest.mark.parametrize("deadline", ["2h", 7200, 7200.0, timedelta(hours=2)])
def test_deadlines_from_now(client: Client, deadline: Any) -> None:
    job = client.new_job(model="m", deadline=deadline)
    assert job.completion_window.seconds == 7200
    assert not job.HasField("complete_by_time")


def test_a_deadline_at_a_time(client: Client) -> None:
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    job = client.new_job(model="m", deadline=moment)
    assert job.complete_by_time.ToDatetime(UTC) == moment
    with pytest.raises(TidemillError, match="needs a time zone"):
        client.new_job(model="m", deadline=moment.replace(tzinfo=None))


def test_a_job_s_other_fields(client: Client) -> None:
    job = client.new_job(
        model="m",
        sampling={"temperature": 0, "stop": "END"},
        dataset="d",
        labels={"a": "b"},
        execution="dedicated",
        origin_run_id="run",
    )
    assert job == job_pb2.Job(
        model="m",
        sampling=row_pb2.SamplingParams(temperature=0, stop=["END"]),
        dataset="d",
        labels={"a": "b"},
        execution_mode=job_pb2.EXECUTION_MODE_DEDICATED,
        origin_run_id="run",
    )


def test_a_job_s_terms(client: Client) -> None:
    job = client.new_job(
        model="m",
        service_class="urgent",
        on_deadline="expire",
        escalate=["raise_class", "more_parallelism"],
        accept_at_risk=True,
    )
    assert job == job_pb2.Job(
        model="m",
        service_class=job_pb2.SERVICE_CLASS_URGENT,
        on_deadline=job_pb2.DEADLINE_POLICY_EXPIRE,
        escalation=job_pb2.Escalation(raise_class=True, more_parallelism=True),
        accept_at_risk=True,
    )
    assert client.new_job(model="m", escalate="raise_class").escalation == job_pb2.Escalation(raise_class=True)


@pytest.mark.parametrize(
    ("arguments", "words", "reason"),
    [
        ({"service_class": "fast"}, "one of urgent, standard, flex, not 'fast'", Reason.INVALID_ARGUMENT),
        ({"on_deadline": "stop"}, "one of run_late, expire, not 'stop'", Reason.INVALID_ARGUMENT),
        ({"escalate": ["panic"]}, "takes raise_class and more_parallelism, not 'panic'", Reason.INVALID_ARGUMENT),
        ({"priority": 1}, "priority is not an option of a job", Reason.INVALID_ARGUMENT),
        ({"sampling": {"temperature": 3}}, "sampling.temperature: is 3", Reason.INVALID_ARGUMENT),
        ({"sampling": {"tools": []}}, "sampling.tools: is not a supported parameter", Reason.UNSUPPORTED_PARAMETER),
        ({"execution": "fast"}, "not 'fast'", Reason.INVALID_ARGUMENT),
        ({"deadline": "soon"}, "is not a duration", Reason.INVALID_ARGUMENT),
    ],
)
def test_wrong_arguments(client: Client, arguments: Any, words: str, reason: Reason) -> None:
    with pytest.raises(TidemillError) as caught:
        client.new_job(model="m", **arguments)
    assert words in caught.value.message
    assert caught.value.reason is reason


def test_rows_from_what_is_at_hand() -> None:
    message = row_pb2.Row(custom_id="own", prompt="c")
    rows = list(to_rows(["a", {"prompt": "b", "seed": 1}, message]))
    assert rows == [
        row_pb2.Row(custom_id="row-1", prompt="a"),
        row_pb2.Row(custom_id="row-2", prompt="b", sampling=row_pb2.SamplingParams(seed=1)),
        message,
    ]


@pytest.mark.parametrize(
    ("item", "field", "reason"),
    [
        ("", "rows[1].prompt", Reason.INVALID_ROWS),
        (5, "rows[1]", Reason.INVALID_ROWS),
        ({"prompt": "a", "messages": []}, "rows[1].messages", Reason.INVALID_ROWS),
        ({"prompt": "a", "temperature": float("nan")}, "rows[1].temperature", Reason.INVALID_ROWS),
        ({"prompt": "a", "best_of": 1}, "rows[1].best_of", Reason.UNSUPPORTED_PARAMETER),
    ],
)
def test_a_bad_row_is_named(item: Any, field: str, reason: Reason) -> None:
    with pytest.raises(TidemillError) as caught:
        list(to_rows(["good", item]))
    assert caught.value.reason is reason
    assert caught.value.violations[0].field == field
    assert caught.value.metadata["row_index"] == "1"

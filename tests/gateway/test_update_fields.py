"""The mask of `UpdateJob`, path by path, without processes."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2

from services.gateway.update_fields import checked_change
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2
from tidemill.v1 import job_pb2, job_service_pb2

NAME = "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
SOON = timestamp_pb2.Timestamp(seconds=int(time.time()) + 3600)
WINDOW = duration_pb2.Duration(seconds=3600)


def change(paths: Sequence[str], **fields: Any) -> scheduler_service_pb2.UpdateJobRequest:
    values: dict[str, Any] = {"name": NAME, **fields}
    job = job_pb2.Job(**values)
    mask = field_mask_pb2.FieldMask(paths=paths)
    return checked_change(job_service_pb2.UpdateJobRequest(job=job, update_mask=mask))


def test_only_what_the_mask_names_changes() -> None:
    found = change(["service_class"], service_class=1, on_deadline=2, complete_by_time=SOON, model="other")
    assert found == scheduler_service_pb2.UpdateJobRequest(job=NAME, service_class=1)  # pyright: ignore[reportArgumentType]


def test_every_path() -> None:
    escalation = job_pb2.Escalation(more_parallelism=True)
    found = change(
        ["complete_by_time", "service_class", "on_deadline", "escalation", "accept_at_risk"],
        complete_by_time=SOON,
        service_class=3,
        on_deadline=2,
        escalation=escalation,
        accept_at_risk=True,
    )
    assert (found.complete_by_time, found.escalation) == (SOON, escalation)
    assert (found.service_class, found.on_deadline, found.accept_at_risk) == (3, 2, True)


def test_a_window_counts_from_now() -> None:
    found = change(["completion_window"], completion_window=WINDOW)
    assert found.complete_by_time.ToNanoseconds() / 1e9 == pytest.approx(time.time() + 3600, abs=60)


def test_what_is_named_and_unset_goes_back_to_its_default() -> None:
    found = change(["service_class", "on_deadline", "escalation", "accept_at_risk"])
    assert found.service_class == job_pb2.SERVICE_CLASS_STANDARD
    assert found.on_deadline == job_pb2.DEADLINE_POLICY_RUN_LATE
    assert found.HasField("escalation")
    assert found.HasField("accept_at_risk")
    assert not found.HasField("complete_by_time")


BAD: list[tuple[list[str], dict[str, Any], str, str]] = [
    ([], {"service_class": 1}, "update_mask", "is empty"),
    (["name"], {}, "update_mask", "'name' cannot be changed; use complete_by_time, "),
    (["labels"], {"labels": {"a": "b"}}, "update_mask", "'labels'"),
    (["escalation.raise_class"], {}, "update_mask", "'escalation.raise_class'"),
    (["*"], {}, "update_mask", "'*'"),
    (
        ["complete_by_time", "completion_window"],
        {"complete_by_time": SOON, "completion_window": WINDOW},
        "update_mask",
        "one of them",
    ),
    (["complete_by_time"], {}, "job.complete_by_time", "not set"),
    (["completion_window"], {"complete_by_time": SOON}, "job.completion_window", "not set"),
    (["service_class"], {"name": "", "service_class": 1}, "job.name", "is missing"),
    (["service_class"], {"service_class": 9}, "job.service_class", "use URGENT, STANDARD or FLEX"),
    (["on_deadline"], {"on_deadline": 9}, "job.on_deadline", "use RUN_LATE or EXPIRE"),
]


@pytest.mark.parametrize(("paths", "fields", "field", "words"), BAD)
def test_bad_updates_name_the_field(paths: list[str], fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(TidemillError, match=words.replace("*", "\\*")) as caught:
        change(paths, **fields)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert [item.field for item in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("complete_by_time", timestamp_pb2.Timestamp(seconds=int(time.time()) - 5)),
        ("complete_by_time", timestamp_pb2.Timestamp(seconds=int(time.time()) + 31 * 86400)),
        ("completion_window", duration_pb2.Duration(seconds=59)),
        ("completion_window", duration_pb2.Duration(seconds=30 * 86400 + 1)),
    ],
)
def test_deadlines_out_of_range(path: str, value: Any) -> None:
    with pytest.raises(TidemillError, match="one minute to thirty days") as caught:
        change([path], **{path: value})
    assert caught.value.reason is Reason.DEADLINE_OUT_OF_RANGE
    assert [item.field for item in caught.value.violations] == [f"job.{path}"]

"""Ranges and shapes of jobs and rows, without processes."""

import math
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.job_fields import check_create, check_job_sampling, deadline_of
from services.gateway.limits import MAX_CUSTOM_ID_BYTES
from services.gateway.row_fields import RowRules, check_row, row_error
from services.gateway.sampling_fields import check_sampling
from services.gateway.unknown_fields import has_unknown_fields
from tidemill.errors import Reason, RowCode, TidemillError
from tidemill.v1 import job_pb2, job_service_pb2, row_pb2

INF, NAN = math.inf, math.nan
RULES = RowRules("m", 100, has_chat_template=True)

INSIDE: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 2},
    {"top_p": 1},
    {"top_p": 1e-9},
    {"top_k": -1},
    {"top_k": 1},
    {"min_p": 0},
    {"min_p": 1},
    {"max_tokens": 1},
    {"max_tokens": 99},
    {"stop": ["x"] * 16},
    {"stop": ["x" * 256]},
    {"seed": 0},
    {"seed": 2**63 - 1},
    {"frequency_penalty": -2},
    {"presence_penalty": 2},
    {"repetition_penalty": 2},
    {"n": 1},
    {"n": 16},
    {"logprobs": 0},
    {"logprobs": 20},
    {"min_tokens": 0},
    {"ignore_eos": True},
    {"json_schema": "{}"},
]
OUTSIDE: list[dict[str, Any]] = [
    *({"temperature": value} for value in (-0.01, 2.01, NAN, INF, -INF)),
    *({"top_p": value} for value in (0, 1.01, NAN, INF)),
    *({"top_k": value} for value in (0, -2)),
    *({"min_p": value} for value in (-0.1, 1.1, NAN)),
    *({"max_tokens": value} for value in (0, -1, 100)),
    *({"stop": value} for value in (["x"] * 17, [""], ["x" * 257], ["ü" * 129])),
    {"seed": -1},
    *({"frequency_penalty": value} for value in (-2.1, 2.1, NAN)),
    *({"presence_penalty": value} for value in (-2.1, 2.1, INF)),
    *({"repetition_penalty": value} for value in (0, 2.1, NAN)),
    *({"n": value} for value in (0, -1, 17)),
    *({"logprobs": value} for value in (-1, 21)),
    {"min_tokens": -1},
    *({"json_schema": value} for value in ("", "{", "[]", '{"type": 1}')),
]


@pytest.mark.parametrize("fields", INSIDE, ids=repr)
def test_sampling_inside(fields: dict[str, Any]) -> None:
    assert not list(check_sampling(row_pb2.SamplingParams(**fields), 100))


@pytest.mark.parametrize("fields", OUTSIDE, ids=repr)
def test_sampling_outside(fields: dict[str, Any]) -> None:
    (found,) = check_sampling(row_pb2.SamplingParams(**fields), 100)
    assert found.field.startswith(f"sampling.{next(iter(fields))}")
    with pytest.raises(TidemillError, match="INVALID_ARGUMENT"):
        check_job_sampling(job_pb2.Job(sampling=row_pb2.SamplingParams(**fields)), 100)


RANGES: dict[str, Callable[[float], bool]] = {
    "temperature": lambda value: 0 <= value <= 2,
    "top_p": lambda value: 0 < value <= 1,
    "min_p": lambda value: 0 <= value <= 1,
    "frequency_penalty": lambda value: -2 <= value <= 2,
    "presence_penalty": lambda value: -2 <= value <= 2,
    "repetition_penalty": lambda value: 0 < value <= 2,
}


@given(values=st.fixed_dictionaries({}, optional=dict.fromkeys(RANGES, st.floats())))
def test_what_passes_is_finite_and_in_range(values: dict[str, float]) -> None:
    found = {item.field for item in check_sampling(row_pb2.SamplingParams(**cast("Any", values)), 0)}
    assert found == {f"sampling.{name}" for name, value in values.items() if not RANGES[name](value)}


@given(custom_id=st.text(max_size=300), prompt=st.text(max_size=20))
def test_a_row_passes_exactly_when_id_and_prompt_are_there(custom_id: str, prompt: str) -> None:
    error = check_row(row_pb2.Row(custom_id=custom_id, prompt=prompt), 7, RULES)
    good = 1 <= len(custom_id.encode()) <= MAX_CUSTOM_ID_BYTES and bool(prompt)
    assert (error is None) == good
    if error is not None:
        assert error.index == 7
        assert len(error.custom_id.encode()) <= 64
        assert error.message


def chat(*messages: tuple[str, str]) -> row_pb2.Row:
    items = [row_pb2.ChatMessage(role=role, content=content) for role, content in messages]
    return row_pb2.Row(custom_id="a", chat=row_pb2.ChatInput(messages=items))


CHATS = [
    (chat(("user", "hi")), ""),
    (chat(("system", "s"), ("user", "hi"), ("assistant", "yes"), ("user", "more")), ""),
    (chat(), "chat.messages"),
    (chat(("user", "hi"), ("assistant", "yes")), "chat.messages[1].role"),
    (chat(("tool", "x"), ("user", "hi")), "chat.messages[0].role"),
    (chat(("user", "")), "chat.messages[0].content"),
]


@pytest.mark.parametrize(("row", "field"), CHATS)
def test_chats(row: row_pb2.Row, field: str) -> None:
    error = check_row(row, 0, RULES)
    assert (error.field if error else "") == field


def test_shown_ids_are_whole_characters() -> None:
    assert row_error("ü" * 100, 0, RowCode.INPUT_MISSING, "", "").custom_id == "ü" * 32
    assert row_error("x" + "ü" * 100, 0, RowCode.INPUT_MISSING, "", "").custom_id == "x" + "ü" * 31


def test_unknown_fields_are_seen_at_any_depth() -> None:
    row = row_pb2.Row(custom_id="a", prompt="x", sampling=row_pb2.SamplingParams(top_p=0.5))
    assert not has_unknown_fields(row)
    row.sampling.MergeFromString(b"\xf8\x07\x01")
    assert has_unknown_fields(job_service_pb2.AppendRowsRequest(rows=[row]))


def seconds_from_now(seconds: float) -> timestamp_pb2.Timestamp:
    moment = timestamp_pb2.Timestamp()
    moment.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return moment


DAY = 86_400
GOOD_JOBS: list[dict[str, Any]] = [
    {},
    {"complete_by_time": seconds_from_now(3600)},
    {"completion_window": duration_pb2.Duration(seconds=60)},
    {"completion_window": duration_pb2.Duration(seconds=30 * DAY)},
    {"labels": {f"k{i}": "v" * 256 for i in range(16)}},
    {"labels": {"k" * 64: ""}},
    {"dataset": "A-z_0.9", "origin_run_id": "x" * 128, "execution_mode": 2},
    {"service_class": 1, "on_deadline": 2, "escalation": job_pb2.Escalation(raise_class=True), "accept_at_risk": True},
]
BAD_DEADLINES: list[dict[str, Any]] = [
    {"complete_by_time": seconds_from_now(30)},
    {"complete_by_time": seconds_from_now(-30)},
    {"complete_by_time": seconds_from_now(31 * DAY)},
    {"complete_by_time": timestamp_pb2.Timestamp(seconds=2**62)},
    {"complete_by_time": timestamp_pb2.Timestamp(seconds=int(time.time()) + 900, nanos=-1)},
    {"completion_window": duration_pb2.Duration(seconds=59)},
    {"completion_window": duration_pb2.Duration(seconds=-60)},
    {"completion_window": duration_pb2.Duration(seconds=30 * DAY, nanos=1)},
]
BAD_JOBS: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "job.model"),
    (
        {"completion_window": duration_pb2.Duration(seconds=90), "complete_by_time": seconds_from_now(86_400)},
        "job.completion_window",
    ),
    ({"service_class": 9}, "job.service_class"),
    ({"on_deadline": 9}, "job.on_deadline"),
    ({"execution_mode": 9}, "job.execution_mode"),
    ({"dataset": "a/b"}, "job.dataset"),
    ({"dataset": "x" * 129}, "job.dataset"),
    ({"labels": {f"k{i}": "" for i in range(17)}}, "job.labels"),
    ({"labels": {"": "v"}}, "job.labels"),
    ({"labels": {"k" * 65: "v"}}, "job.labels"),
    ({"labels": {"k": "v" * 257}}, "job.labels[k]"),
    ({"origin_run_id": "x" * 129}, "job.origin_run_id"),
    ({"sampling": row_pb2.SamplingParams(top_p=2)}, "job.sampling.top_p"),
]


@pytest.mark.parametrize("fields", GOOD_JOBS)
def test_good_jobs(fields: dict[str, Any]) -> None:
    check_create(job_service_pb2.CreateJobRequest(job=job_pb2.Job(model="m", **fields), request_id="x" * 128))


@pytest.mark.parametrize(("fields", "field"), BAD_JOBS)
def test_bad_jobs(fields: dict[str, Any], field: str) -> None:
    values: dict[str, Any] = {"model": "m", **fields}
    job = job_pb2.Job(**values)
    with pytest.raises(TidemillError) as caught:
        check_create(job_service_pb2.CreateJobRequest(job=job))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert [item.field for item in caught.value.violations] == [field]


@pytest.mark.parametrize("fields", BAD_DEADLINES, ids=range(len(BAD_DEADLINES)))
def test_a_deadline_out_of_range_has_a_reason_of_its_own(fields: dict[str, Any]) -> None:
    with pytest.raises(TidemillError, match="one minute to thirty days from now") as caught:
        check_create(job_service_pb2.CreateJobRequest(job=job_pb2.Job(model="m", **fields)))
    assert caught.value.reason is Reason.DEADLINE_OUT_OF_RANGE
    assert [item.field for item in caught.value.violations] == [f"job.{name}" for name in fields]


def test_every_violation_is_named_at_once() -> None:
    job = job_pb2.Job(dataset="/", origin_run_id="x" * 129)
    with pytest.raises(TidemillError) as caught:
        check_create(job_service_pb2.CreateJobRequest(job=job, request_id="x" * 129))
    fields = {item.field for item in caught.value.violations}
    assert fields == {"request_id", "job.model", "job.dataset", "job.origin_run_id"}


@pytest.mark.parametrize("fields", [{"state": 1}, {"name": "tenants/a/jobs/b"}, {"next_offset": 4}])
def test_what_the_service_sets_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(TidemillError, match="UNSUPPORTED_PARAMETER"):
        check_create(job_service_pb2.CreateJobRequest(job=job_pb2.Job(model="m", **fields)))


def test_a_job_with_unknown_fields_is_refused() -> None:
    job = job_pb2.Job(model="m")
    job.sampling.MergeFromString(b"\xf8\x07\x01")
    with pytest.raises(TidemillError, match="UNSUPPORTED_PARAMETER"):
        check_create(job_service_pb2.CreateJobRequest(job=job))


def test_deadlines() -> None:
    now = 1_000_000_000 * 10**9
    moment = timestamp_pb2.Timestamp(seconds=5)
    assert deadline_of(job_pb2.Job(complete_by_time=moment), now) == moment
    window = duration_pb2.Duration(seconds=90, nanos=7)
    assert deadline_of(job_pb2.Job(completion_window=window), now).ToNanoseconds() == now + 90 * 10**9 + 7
    assert deadline_of(job_pb2.Job(), now).ToNanoseconds() == now + DAY * 10**9

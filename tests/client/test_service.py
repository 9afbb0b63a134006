"""The client against the real gateway and scheduler: the main path, and every refusal that a user can meet."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from tests.client.service import Service
from tidemill.client import Client, RowsFailedError, RowsRefusedError, state_name, vectors
from tidemill.errors import Reason, TidemillError
from tidemill.sampling_limits import RANGES
from tidemill.v1 import row_pb2


def prompts(count: int) -> Iterator[row_pb2.Row]:
    return (row_pb2.Row(custom_id=f"r{index}", prompt=f"say {index}") for index in range(count))


def refused(act: Callable[[], Any]) -> TidemillError:
    with pytest.raises(TidemillError) as caught:
        act()
    return caught.value


def test_a_job_is_answered_in_order(service: Service, client: Client) -> None:
    labels = {"team": "a"}
    handle = client.submit(prompts(2500), model=service.model, deadline="2h", dataset="d", labels=labels)
    last = handle.wait(timeout=60)
    assert state_name(last) == "SUCCEEDED"
    assert (last.row_counts.total, last.row_counts.succeeded) == (2500, 2500)
    assert (last.dataset, dict(last.labels)) == ("d", labels)
    assert last.complete_by_time.seconds - last.create_time.seconds == pytest.approx(7200, abs=2)
    results = list(handle.results())
    assert [result.row_index for result in results] == list(range(2500))
    assert [result.custom_id for result in results] == [f"r{index}" for index in range(2500)]
    finished = list(handle.results("completion"))
    assert sorted(result.row_index for result in finished) == list(range(2500))
    assert [item.row_index for item in handle.results(start=2490)] == list(range(2490, 2500))


def test_one_call_answers_prompts(service: Service, client: Client) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}], "custom_id": "own", "temperature": 0}
    results = client.run(["a", {"prompt": "b"}, chat], model=service.model)
    assert [result.custom_id for result in results] == ["row-1", "row-2", "own"]
    assert [result.text for result in results] == ["answer to row-1", "answer to row-2", "answer to own"]


def test_failed_rows_are_raised_by_name_or_returned(service: Service, client: Client) -> None:
    rows = [{"prompt": "x", "custom_id": f"{'fail' if number % 2 else 'good'}-{number}"} for number in range(20)]
    with pytest.raises(RowsFailedError) as caught:
        client.run(rows, model=service.model)
    error = caught.value
    assert (error.reason, len(error.results), len(error.failed)) == (Reason.ROWS_FAILED, 20, 10)
    assert "10 of 20 rows of tenants/dev/jobs/" in error.message
    assert "row 1 ('fail-1'): " in error.message
    assert error.message.endswith("; and 5 more")
    results = client.run(rows, model=service.model, on_failure="return")
    assert [result.row_index for result in results if result.error_code] == list(range(1, 20, 2))
    assert "'raise' or 'return'" in refused(lambda: client.run(rows, model="m", on_failure=cast("Any", "no"))).message


def test_the_same_request_id_is_the_same_job(service: Service, client: Client) -> None:
    first = client.submit(prompts(3), model=service.model, request_id="once")
    assert client.submit(prompts(3), model=service.model, request_id="once").name == first.name
    error = refused(lambda: client.submit(prompts(3), model=service.model, request_id="once", dataset="other"))
    assert error.reason is Reason.REQUEST_ID_REUSED


def test_an_interrupted_submission_is_resumed_by_its_request_id(service: Service, client: Client) -> None:
    def broken() -> Iterator[row_pb2.Row]:
        yield from prompts(2000)
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError):
        client.submit(broken(), model=service.model, request_id="resumed")
    handle = client.submit(prompts(3000), model=service.model, request_id="resumed")
    assert handle.wait(timeout=60).row_counts.succeeded == 3000


def test_the_service_s_restart_costs_time_only(service: Service, client: Client) -> None:
    def rows() -> Iterator[row_pb2.Row]:
        for index, row in enumerate(prompts(4000)):
            if index == 2000:
                service.stack.stop("gateway")
                service.stack.start("gateway")
            yield row

    handle = client.submit(rows(), model=service.model)
    assert handle.wait(timeout=60).row_counts.succeeded == 4000
    assert [result.row_index for result in handle.results()] == list(range(4000))


def test_jobs_are_listed_found_and_cancelled(service: Service, client: Client) -> None:
    handle, _ = client.create(client.new_job(model=service.model))
    assert next(client.jobs()).name == handle.name
    assert client.job(handle.name.rpartition("/")[2]).get().name == handle.name
    assert [job.name for job in client.jobs(["receiving"], page_size=1)].count(handle.name) == 1
    assert state_name(handle.cancel()) in ("CANCELLING", "CANCELLED")
    assert state_name(handle.wait(timeout=30)) == "CANCELLED"
    assert state_name(handle.cancel()) == "CANCELLED"
    finished = client.submit(["a"], model=service.model)
    finished.wait(timeout=30)
    assert refused(finished.cancel).reason is Reason.JOB_TERMINAL
    assert refused(lambda: list(client.jobs(["sleeping"]))).reason is Reason.INVALID_ARGUMENT


def test_models_are_listed_and_read_by_name(service: Service, client: Client) -> None:
    assert f"models/{service.model}" in [model.name for model in client.models()]
    assert client.model(service.model).name == f"models/{service.model}"
    assert refused(lambda: client.model("nonesuch")).reason is Reason.MODEL_NOT_FOUND


def test_a_job_is_deleted_only_as_it_was_seen(service: Service, client: Client) -> None:
    job = client.submit(["a"], model=service.model)
    job.wait(timeout=60)
    assert refused(lambda: job.delete("stale")).reason is Reason.ETAG_MISMATCH
    job.delete(job.get().etag)
    assert refused(job.get).reason is Reason.JOB_NOT_FOUND


def test_a_wrong_key(service: Service) -> None:
    wrong = service.key[:-1] + ("a" if service.key[-1] != "a" else "b")
    for key in (wrong, "nonsense"):
        with service.client(key) as client:
            assert refused(client.models).reason is Reason.API_KEY_INVALID


def test_another_tenant_s_job_does_not_exist(service: Service, client: Client) -> None:
    handle, _ = client.create(client.new_job(model=service.model))
    with service.client(service.key_of("other")) as stranger:
        theirs = stranger.job(handle.name)
        for act in (theirs.get, theirs.cancel, lambda: list(theirs.watch()), lambda: list(theirs.results())):
            assert refused(act).reason is Reason.JOB_NOT_FOUND
        assert refused(lambda: stranger.append(theirs, ["a"])).reason is Reason.JOB_NOT_FOUND
    assert client.job(handle.name).get().name == handle.name


def test_an_unknown_model(client: Client) -> None:
    error = refused(lambda: client.submit(["a"], model="no-such"))
    assert error.reason is Reason.MODEL_NOT_FOUND
    assert "no-such" in error.message


BAD_ROWS: list[tuple[str, row_pb2.Row, str, str]] = [
    ("no input", row_pb2.Row(custom_id="x"), "INPUT_MISSING", "input"),
    ("empty prompt", row_pb2.Row(custom_id="x", prompt=""), "INPUT_MISSING", "prompt"),
    ("no id", row_pb2.Row(prompt="a"), "CUSTOM_ID_INVALID", "custom_id"),
    ("repeated id", row_pb2.Row(custom_id="r0", prompt="a"), "CUSTOM_ID_DUPLICATE", "custom_id"),
    (
        "temperature",
        row_pb2.Row(custom_id="x", prompt="a", sampling=row_pb2.SamplingParams(temperature=3)),
        "PARAMETER_OUT_OF_RANGE",
        "sampling.temperature",
    ),
    ("too long", row_pb2.Row(custom_id="x", prompt="\u00e9" * 3000), "PROMPT_TOO_LONG", "prompt"),
]


@pytest.mark.parametrize(("row", "code", "field"), [item[1:] for item in BAD_ROWS], ids=[item[0] for item in BAD_ROWS])
def test_a_bad_row_is_named_and_what_was_acknowledged_stays(
    service: Service, client: Client, row: row_pb2.Row, code: str, field: str
) -> None:
    handle, _ = client.create(client.new_job(model=service.model))
    rows = [*prompts(1030), row]
    error = refused(lambda: client.append(handle, rows))
    assert isinstance(error, RowsRefusedError)
    [found] = error.row_errors
    assert (found.index, found.code, found.field) == (1030, code, field)
    assert error.violations[0].field == f"rows[1030].{field}"
    assert handle.get().next_offset == 1024
    rows[-1] = row_pb2.Row(custom_id="good", prompt="a")
    client.seal(handle, client.append(handle, rows))
    assert handle.wait(timeout=60).row_counts.succeeded == 1031


def test_embeddings_come_as_an_array(service: Service, client: Client) -> None:
    rows = [{"embed": "x" * length, "dimensions": 3} for length in range(1, 200)]
    results = client.run(rows, model=service.model)
    assert vectors(results).tolist() == [[float(length), 0.5, 0.5] for length in range(1, 200)]


def test_sampling_that_does_not_fit_together_is_refused(service: Service, client: Client) -> None:
    for sampling, field in [
        ({"n": 2, "temperature": 0}, "n"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"json_schema": {}, "ignore_eos": True}, "ignore_eos"),
        ({"n": 16, "logprobs": 20, "max_tokens": 400}, "logprobs"),
    ]:
        error = refused(lambda sampling=sampling: client.submit(["a"], model=service.model, sampling=sampling))
        assert error.reason is Reason.INVALID_ARGUMENT
        assert [item.field for item in error.violations] == [f"job.sampling.{field}"]
        row = {"prompt": "a", **sampling}
        found = refused(lambda row=row: client.submit([row], model=service.model))
        assert [item.field for item in found.violations] == [f"rows[0].sampling.{field}"]


def edges(name: str) -> Iterator[tuple[int | float, bool]]:
    """Values at the edges of a range, and whether they lie in it."""
    allowed = RANGES[name]
    step = 1 if allowed.whole else 1e-6
    convert = int if allowed.whole else float
    yield convert(allowed.low), not allowed.above_low
    yield convert(allowed.low - step), allowed.also == allowed.low - step
    yield convert(allowed.low + step), True
    if allowed.high < 2**31 - 1:
        yield convert(allowed.high), True
        yield convert(allowed.high + step), False


@pytest.mark.parametrize("name", sorted(RANGES))
def test_client_and_gateway_agree_on_ranges(service: Service, client: Client, name: str) -> None:
    for value, inside in edges(name):
        job = client.new_job(model=service.model)
        setattr(job.sampling, name, value)
        assert (value in RANGES[name]) == inside, value
        if inside:
            client.create(job)[0].cancel()
        else:
            assert refused(lambda job=job: client.create(job)).reason is Reason.INVALID_ARGUMENT, value


def test_a_wrong_row_count_at_the_seal(service: Service, client: Client) -> None:
    handle, _ = client.create(client.new_job(model=service.model))
    count = client.append(handle, prompts(10))
    error = refused(lambda: client.seal(handle, count + 1))
    assert error.reason is Reason.ROW_COUNT_MISMATCH
    assert handle.get().next_offset == 10
    assert state_name(client.seal(handle, count)) in ("QUEUED", "RUNNING", "SUCCEEDED")
    assert refused(lambda: client.append(handle, prompts(11))).reason is Reason.JOB_NOT_RECEIVING


def test_a_job_without_rows(service: Service, client: Client) -> None:
    assert refused(lambda: client.submit([], model=service.model)).reason is Reason.JOB_EMPTY


def test_changed_content_at_a_stored_offset(service: Service, client: Client) -> None:
    handle, _ = client.create(client.new_job(model=service.model))
    client.append(handle, prompts(10))
    changed = [*prompts(9), row_pb2.Row(custom_id="r9", prompt="changed"), row_pb2.Row(custom_id="r10", prompt="a")]
    error = refused(lambda: client.append(handle, changed))
    assert error.reason is Reason.ROW_CONTENT_MISMATCH
    assert handle.get().next_offset == 10


def test_a_newer_writer_takes_over(service: Service, client: Client) -> None:
    handle, _ = client.create(client.new_job(model=service.model))

    def rows() -> Iterator[row_pb2.Row]:
        for index, row in enumerate(prompts(3000)):
            if index == 1500:
                with service.client() as second:
                    second.append(second.job(handle.name), [])
            yield row

    error = refused(lambda: client.append(handle, rows()))
    assert error.reason is Reason.WRITER_SUPERSEDED


def test_a_deadline_out_of_range(service: Service, client: Client) -> None:
    for deadline in ("1s", "99d"):
        error = refused(lambda deadline=deadline: client.submit(["a"], model=service.model, deadline=deadline))
        assert error.reason is Reason.DEADLINE_OUT_OF_RANGE
        assert error.violations[0].field == "job.completion_window"


def test_results_beyond_the_end(service: Service, client: Client) -> None:
    handle = client.submit(["a"], model=service.model)
    handle.wait(timeout=30)
    assert refused(lambda: list(handle.results(start=99))).reason is Reason.OFFSET_OUT_OF_RANGE


def test_the_appender_starts_where_the_job_ends(service: Service, client: Client) -> None:
    handle, _ = client.create(client.new_job(model=service.model))
    client.append(handle, prompts(700))
    assert client.append(handle, prompts(700)) == 700
    assert client.append(handle, prompts(900)) == 900
    assert handle.get().next_offset == 900

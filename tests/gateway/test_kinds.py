"""Kinds of rows and what may be asked of them, through the real scheduler and gateway."""

from typing import Any

import pytest

from tests.gateway.client import GatewayClient, refused
from tests.gateway.fake_worker import FakeWorker
from tidemill.v1 import job_pb2, job_service_pb2, model_service_pb2, row_pb2

EVERY = [item for item in model_service_pb2.Task.values() if item]
Sampling = row_pb2.SamplingParams


def embedding(custom_id: str = "e", **fields: int) -> row_pb2.Row:
    return row_pb2.Row(custom_id=custom_id, embedding=row_pb2.EmbeddingInput(text="four", **fields))


def classification(text: str = "x") -> row_pb2.Row:
    return row_pb2.Row(custom_id="c", classification=row_pb2.ClassificationInput(text=text))


def score(query: str = "a", document: str = "bcd") -> row_pb2.Row:
    return row_pb2.Row(custom_id="s", score=row_pb2.ScoreInput(query=query, document=document))


async def offer(worker: FakeWorker, *tasks: "model_service_pb2.Task.ValueType") -> None:
    worker.tasks = list(tasks)
    await worker.offer(worker.report())


async def refusal(client: GatewayClient, worker: FakeWorker, row: row_pb2.Row, **job: Any) -> row_pb2.RowError:
    """Why a row is refused; nothing of its frame is stored."""
    name = (await client.create(worker.model, **job)).name
    stream = await client.append(name)
    await stream.send(0, [row])
    (error,) = (await stream.error()).row_errors
    assert (await client.get(name)).next_offset == 0
    assert error.message
    return error


async def test_each_kind_is_answered_in_kind(client: GatewayClient, worker: FakeWorker) -> None:
    await offer(worker, *EVERY)
    several = row_pb2.Row(custom_id="p", prompt="x", sampling=Sampling(n=3, logprobs=2, max_tokens=9))
    job = await client.create(worker.model)
    await client.fill(job.name, [embedding(), embedding("cut", dimensions=2), classification(), score(), several])
    await client.seal(job.name, 5)
    await worker.end(job.name)
    frames = await client.results(job.name)
    vector, cut, classes, scored, text = [row for frame in frames for row in frame.results]
    assert list(vector.embedding) == [4.0, 0.5, 0.5, 0.5]
    assert list(cut.embedding) == [4.0, 0.5]
    assert [(item.label, item.probability) for item in classes.classes] == [("long", 0.75), ("short", 0.25)]
    assert scored.HasField("score")
    assert scored.score == 0.25
    assert not vector.HasField("score")
    assert not vector.HasField("prefill_seconds")
    assert [(item.text, item.finish_reason) for item in text.alternatives] == [
        ("answer to p (2)", "length"),
        ("answer to p (3)", "length"),
    ]
    assert [(item.token, item.logprob, len(item.top)) for item in text.logprobs] == [
        ("answer", -0.5, 2),
        ("to", -0.5, 2),
        ("p", -0.5, 2),
    ]
    assert text.alternatives[0].logprobs == text.logprobs


async def test_the_list_of_models_names_their_tasks(client: GatewayClient, worker: FakeWorker) -> None:
    async def tasks() -> list[int]:
        response = await client.list_models()
        (found,) = [item for item in response.models if item.name == f"models/{worker.model}"]
        return list(found.tasks)

    assert await tasks() == [model_service_pb2.TASK_GENERATE]
    await offer(worker, model_service_pb2.TASK_SCORE, model_service_pb2.TASK_EMBED)
    assert await tasks() == [model_service_pb2.TASK_EMBED, model_service_pb2.TASK_SCORE]


async def test_a_row_of_another_kind_than_the_model_s_is_refused(client: GatewayClient, worker: FakeWorker) -> None:
    for row, field in [(embedding(), "embedding"), (classification(), "classification"), (score(), "score")]:
        error = await refusal(client, worker, row)
        assert (error.code, error.field) == ("TASK_NOT_SUPPORTED", field)
        assert "generate" in error.message


async def test_a_model_that_embeds_takes_no_prompts_and_no_sampling(client: GatewayClient, worker: FakeWorker) -> None:
    await offer(worker, model_service_pb2.TASK_EMBED)
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    await stream.send(0, [row_pb2.Row(custom_id="p", prompt="x")])
    (error,) = (await stream.error()).row_errors
    assert (error.code, error.field) == ("TASK_NOT_SUPPORTED", "prompt")
    with refused("INVALID_ARGUMENT") as caught:
        await client.create(worker.model, sampling=Sampling(temperature=1))
    assert [item.field for item in caught.value.violations] == ["job.sampling.temperature"]


CASES: list[tuple[row_pb2.Row, str, str]] = [
    (embedding(dimensions=0), "PARAMETER_OUT_OF_RANGE", "embedding.dimensions"),
    (row_pb2.Row(custom_id="e", embedding=row_pb2.EmbeddingInput()), "INPUT_MISSING", "embedding.text"),
    (classification(""), "INPUT_MISSING", "classification.text"),
    (score(query=""), "INPUT_MISSING", "score.query"),
    (score(document=""), "INPUT_MISSING", "score.document"),
    (score("x" * 300, "y" * 300), "PROMPT_TOO_LONG", "score"),
    (classification("x" * 600), "PROMPT_TOO_LONG", "classification"),
    (
        row_pb2.Row(custom_id="e", embedding=row_pb2.EmbeddingInput(text="x"), sampling=Sampling(temperature=0)),
        "UNSUPPORTED_PARAMETER",
        "sampling.temperature",
    ),
    (row_pb2.Row(custom_id="p", prompt="x", sampling=Sampling(n=17)), "PARAMETER_OUT_OF_RANGE", "sampling.n"),
    (
        row_pb2.Row(custom_id="p", prompt="x", sampling=Sampling(json_schema='{"type":"objekt"}')),
        "SCHEMA_INVALID",
        "sampling.json_schema",
    ),
]


@pytest.mark.parametrize(("row", "code", "field"), CASES, ids=[f"{code} {field}" for _, code, field in CASES])
async def test_bad_rows_of_each_kind_are_named(
    client: GatewayClient, worker: FakeWorker, row: row_pb2.Row, code: str, field: str
) -> None:
    await offer(worker, *EVERY)
    error = await refusal(client, worker, row)
    assert (error.code, error.field) == (code, field)


async def test_a_row_must_fit_the_job_s_defaults(client: GatewayClient, worker: FakeWorker) -> None:
    greedy = Sampling(temperature=0, max_tokens=4)
    row = row_pb2.Row(custom_id="p", prompt="x", sampling=Sampling(n=2))
    assert (await refusal(client, worker, row, sampling=greedy)).field == "sampling.n"
    row.sampling.CopyFrom(Sampling(min_tokens=5))
    assert (await refusal(client, worker, row, sampling=greedy)).field == "sampling.min_tokens"


async def test_what_an_engine_of_its_own_cannot_give_is_refused(client: GatewayClient, worker: FakeWorker) -> None:
    dedicated = job_pb2.EXECUTION_MODE_DEDICATED
    for name, sampling in [
        ("n", Sampling(n=2)),
        ("logprobs", Sampling(logprobs=0, max_tokens=1)),
        ("json_schema", Sampling(json_schema="{}")),
    ]:
        row = row_pb2.Row(custom_id="p", prompt="x", sampling=sampling)
        error = await refusal(client, worker, row, execution_mode=dedicated)
        assert (error.code, error.field) == ("UNSUPPORTED_PARAMETER", f"sampling.{name}")
        # A job that asks this of all its rows runs in shared mode.
        job = await client.create(worker.model, execution_mode=dedicated, sampling=sampling)
        await client.fill(job.name, [row])


async def test_a_job_s_schema_is_checked_before_there_are_rows(client: GatewayClient, worker: FakeWorker) -> None:
    with refused("INVALID_ARGUMENT") as caught:
        await client.create(worker.model, sampling=Sampling(json_schema="{"))
    assert [item.field for item in caught.value.violations] == ["job.sampling.json_schema"]


async def test_samples_in_the_feed_are_cut_short(client: GatewayClient, worker: FakeWorker) -> None:
    await offer(worker, *EVERY)
    job = await client.create(worker.model)
    asked = Sampling(n=3, logprobs=2, max_tokens=9)
    await client.fill(job.name, [embedding(dimensions=500), row_pb2.Row(custom_id="p", prompt="x", sampling=asked)])
    await client.seal(job.name, 2)
    await worker.end(job.name)
    after, found = 0, list[job_service_pb2.Completion]()
    while page := (
        await client.unary(
            client.jobs.ListCompletions, job_service_pb2.ListCompletionsRequest(after_sequence=after, limit=500)
        )
    ).completions:
        found += [entry for entry in page if entry.job.name == job.name and entry.sample_results]
        after = page[-1].sequence
    (finished,) = found
    vector, text = finished.sample_results
    assert (len(vector.embedding), text.text) == (16, "answer to p")
    assert not text.alternatives
    assert not text.logprobs


async def test_long_vectors_come_in_small_windows(client: GatewayClient, worker: FakeWorker) -> None:
    await offer(worker, *EVERY)
    job = await client.create(worker.model)
    await client.fill(job.name, [embedding(f"e{index}", dimensions=20_000) for index in range(150)])
    await client.seal(job.name, 150)
    await worker.end(job.name)
    frames = await client.results(job.name)
    assert [row.row_index for frame in frames for row in frame.results] == list(range(150))
    assert max(len(frame.results) for frame in frames) <= 13

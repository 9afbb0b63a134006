import json
from typing import Any

from tidemill.client.openai_output import output_line
from tidemill.client.requests import Endpoint
from tidemill.v1 import job_pb2, row_pb2

JOB = job_pb2.Job(name="tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV", model="tiny")
JOB.create_time.FromSeconds(1_700_000_000)
ANSWER = row_pb2.RowResult(
    row_index=3,
    custom_id="c",
    status=row_pb2.ROW_STATUS_SUCCEEDED,
    text="caf\u00e9",
    finish_reason="length",
    prompt_tokens=5,
    output_tokens=2,
    cached_tokens=4,
)


def test_a_chat_answer() -> None:
    line = output_line(ANSWER, JOB, Endpoint.CHAT)
    assert "caf\u00e9" in line
    assert json.loads(line) == {
        "id": "batch_req_01ARZ3NDEKTSV4RRFFQ69G5FAV-3",
        "custom_id": "c",
        "response": {
            "status_code": 200,
            "request_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV-3",
            "body": {
                "id": "chatcmpl-01ARZ3NDEKTSV4RRFFQ69G5FAV-3",
                "object": "chat.completion",
                "created": 1_700_000_000,
                "model": "tiny",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "caf\u00e9"},
                        "logprobs": None,
                        "finish_reason": "length",
                    }
                ],
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 2,
                    "total_tokens": 7,
                    "prompt_tokens_details": {"cached_tokens": 4},
                },
            },
        },
        "error": None,
    }


def test_a_completion_answer() -> None:
    body = json.loads(output_line(ANSWER, JOB, Endpoint.COMPLETION))["response"]["body"]
    assert body["object"] == "text_completion"
    assert body["choices"][0] == {"index": 0, "text": "caf\u00e9", "logprobs": None, "finish_reason": "length"}


def logprob(token: str, value: float, *top: tuple[str, float]) -> row_pb2.TokenLogprob:
    tops = [row_pb2.TopLogprob(token=name, logprob=number) for name, number in top]
    return row_pb2.TokenLogprob(token=token, logprob=value, top=tops)


TOKENS = [logprob("caf", -0.5, ("caf", -0.5), ("x", float("-inf"))), logprob("\u00e9", -0.25)]
SEVERAL = row_pb2.RowResult(
    status=row_pb2.ROW_STATUS_SUCCEEDED,
    text="caf\u00e9",
    finish_reason="stop",
    logprobs=TOKENS,
    alternatives=[row_pb2.Alternative(text="tea", finish_reason="length", output_tokens=1)],
)


def body_of(result: row_pb2.RowResult, endpoint: Endpoint) -> dict[str, Any]:
    return json.loads(output_line(result, JOB, endpoint))["response"]["body"]


def test_several_answers_with_the_logprobs_of_a_chat() -> None:
    first, second = body_of(SEVERAL, Endpoint.CHAT)["choices"]
    caf = {"token": "caf", "logprob": -0.5, "bytes": [99, 97, 102]}
    impossible = {"token": "x", "logprob": -9999.0, "bytes": [120]}
    last = {"token": "\u00e9", "logprob": -0.25, "bytes": [0xC3, 0xA9], "top_logprobs": []}
    assert first["logprobs"] == {"content": [{**caf, "top_logprobs": [caf, impossible]}, last], "refusal": None}
    assert (second["index"], second["message"]["content"], second["finish_reason"]) == (1, "tea", "length")
    assert second["logprobs"] is None


def test_the_logprobs_of_a_completion() -> None:
    first, second = body_of(SEVERAL, Endpoint.COMPLETION)["choices"]
    assert first["logprobs"] == {
        "tokens": ["caf", "\u00e9"],
        "token_logprobs": [-0.5, -0.25],
        "top_logprobs": [{"caf": -0.5, "x": -9999.0}, {}],
        "text_offset": [0, 3],
    }
    assert (second["index"], second["text"]) == (1, "tea")


def pooled(**fields: Any) -> dict[str, Any]:
    result = row_pb2.RowResult(status=row_pb2.ROW_STATUS_SUCCEEDED, prompt_tokens=3, **fields)
    return body_of(result, Endpoint.COMPLETION)


def test_vectors_classes_and_scores() -> None:
    body = pooled(embedding=[0.5, -1])
    assert (body["object"], body["data"]) == ("list", [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}])
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}}
    classes = [row_pb2.ClassScore(label="a", probability=0.75), row_pb2.ClassScore(label="b", probability=0.25)]
    (item,) = pooled(classes=classes)["data"]
    assert (item["label"], item["num_classes"], item["classes"][1]) == ("a", 2, {"label": "b", "probability": 0.25})
    assert pooled(score=0.0)["data"] == [{"object": "score", "index": 0, "score": 0.0}]


def test_an_unknown_finish_reason_is_null() -> None:
    answer = row_pb2.RowResult(status=row_pb2.ROW_STATUS_SUCCEEDED, text="x")
    assert (
        json.loads(output_line(answer, JOB, Endpoint.CHAT))["response"]["body"]["choices"][0]["finish_reason"] is None
    )


def test_a_row_without_an_answer() -> None:
    for status, code in (
        (row_pb2.ROW_STATUS_FAILED, "PROMPT_TOO_LONG"),
        (row_pb2.ROW_STATUS_CANCELLED, "JOB_CANCELLED"),
    ):
        result = row_pb2.RowResult(custom_id="c", status=status, error_code=code, error_message="why")
        fields = json.loads(output_line(result, JOB, Endpoint.CHAT))
        assert fields["response"] is None
        assert fields["error"] == {"code": code, "message": "why"}


def test_line_separators_do_not_break_lines() -> None:
    answer = row_pb2.RowResult(status=row_pb2.ROW_STATUS_SUCCEEDED, text="a\nb\u2028c\x00")
    line = output_line(answer, JOB, Endpoint.CHAT)
    assert "\n" not in line
    assert json.loads(line)["response"]["body"]["choices"][0]["message"]["content"] == "a\nb\u2028c\x00"

import json

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

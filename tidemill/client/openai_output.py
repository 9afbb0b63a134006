"""Results as OpenAI batch output: one JSON object a line."""

import json
from typing import Any

from tidemill.client.requests import Endpoint
from tidemill.v1 import job_pb2, row_pb2


def output_line(result: row_pb2.RowResult, job: job_pb2.Job, endpoint: Endpoint) -> str:
    """The batch output line of `result`, without a newline.

    A row without an answer has no `response` and an `error` with its typed code, as OpenAI's expired rows have.
    """
    request_id = f"{job.name.rpartition('/')[2]}-{result.row_index}"
    answered = result.status == row_pb2.ROW_STATUS_SUCCEEDED
    fields: dict[str, Any] = {
        "id": f"batch_req_{request_id}",
        "custom_id": result.custom_id,
        "response": _response(result, job, endpoint, request_id) if answered else None,
        "error": None if answered else {"code": result.error_code, "message": result.error_message},
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _response(result: row_pb2.RowResult, job: job_pb2.Job, endpoint: Endpoint, request_id: str) -> dict[str, Any]:
    chat = endpoint is Endpoint.CHAT
    body = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{request_id}",
        "object": "chat.completion" if chat else "text_completion",
        "created": job.create_time.seconds,
        "model": job.model,
        "choices": [_choice(result, chat=chat)],
        "usage": _usage(result),
    }
    return {"status_code": 200, "request_id": request_id, "body": body}


def _choice(result: row_pb2.RowResult, *, chat: bool) -> dict[str, Any]:
    answer = {"message": {"role": "assistant", "content": result.text}} if chat else {"text": result.text}
    return {"index": 0, **answer, "logprobs": None, "finish_reason": result.finish_reason or None}


def _usage(result: row_pb2.RowResult) -> dict[str, Any]:
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.output_tokens,
        "total_tokens": result.prompt_tokens + result.output_tokens,
        "prompt_tokens_details": {"cached_tokens": result.cached_tokens},
    }

"""Results as OpenAI batch output: one JSON object a line. Classes and scores, which OpenAI has not, are as in vLLM."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from tidemill.client.openai_logprobs import chat_logprobs, completion_logprobs
from tidemill.client.requests import Endpoint
from tidemill.v1 import job_pb2, row_pb2


def output_line(result: row_pb2.RowResult, job: job_pb2.Job, endpoint: Endpoint) -> str:
    """The batch output line of `result`, without a newline.

    A row without an answer has no `response` and an `error` with its typed code, as OpenAI's expired rows have.
    `endpoint` tells a chat's text from a completion's; vectors, classes and scores have shapes of their own.
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
    if result.embedding or result.classes or result.HasField("score"):
        body = _pooled(result, job, request_id)
    else:
        body = _generated(result, job, request_id, chat=endpoint is Endpoint.CHAT)
    return {"status_code": 200, "request_id": request_id, "body": body}


def _generated(result: row_pb2.RowResult, job: job_pb2.Job, request_id: str, *, chat: bool) -> dict[str, Any]:
    first = row_pb2.Alternative(text=result.text, finish_reason=result.finish_reason, logprobs=result.logprobs)
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{request_id}",
        "object": "chat.completion" if chat else "text_completion",
        "created": job.create_time.seconds,
        "model": job.model,
        "choices": list(_choices(chain([first], result.alternatives), chat=chat)),
        "usage": {**_usage(result), "completion_tokens": result.output_tokens},
    }


def _choices(answers: Iterable[row_pb2.Alternative], *, chat: bool) -> Iterator[dict[str, Any]]:
    for index, item in enumerate(answers):
        answer = {"message": {"role": "assistant", "content": item.text}} if chat else {"text": item.text}
        shape = chat_logprobs if chat else completion_logprobs
        logprobs = shape(item.logprobs) if item.logprobs else None
        yield {"index": index, **answer, "logprobs": logprobs, "finish_reason": item.finish_reason or None}


def _pooled(result: row_pb2.RowResult, job: job_pb2.Job, request_id: str) -> dict[str, Any]:
    if result.embedding:
        name, item = "embd", {"object": "embedding", "index": 0, "embedding": list(result.embedding)}
    elif result.classes:
        classes = [{"label": entry.label, "probability": entry.probability} for entry in result.classes]
        item = {"index": 0, "label": classes[0]["label"], "num_classes": len(classes), "classes": classes}
        name = "classify"
    else:
        name, item = "score", {"object": "score", "index": 0, "score": result.score}
    return {
        "id": f"{name}-{request_id}",
        "object": "list",
        "created": job.create_time.seconds,
        "model": job.model,
        "data": [item],
        "usage": _usage(result),
    }


def _usage(result: row_pb2.RowResult) -> dict[str, Any]:
    return {
        "prompt_tokens": result.prompt_tokens,
        "total_tokens": result.prompt_tokens + result.output_tokens,
        "prompt_tokens_details": {"cached_tokens": result.cached_tokens},
    }

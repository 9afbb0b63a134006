"""One request as a JSON object, in OpenAI's batch form or plain, made into a `Row`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from tidemill.client.parameters import PARAMETERS, FieldError, build_sampling, check_text, show
from tidemill.errors import Reason
from tidemill.v1 import row_pb2

MAX_CUSTOM_ID_BYTES = 256
ROLES = ("system", "user", "assistant")
_BATCH_KEYS = frozenset({"custom_id", "method", "url", "body"})


class Endpoint(StrEnum):
    """Which OpenAI endpoint a request is for; it decides the shape of the answer."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"


@dataclass(frozen=True)
class ParsedRequest:
    """A row, the endpoint that it is meant for, and the model that it names, if it names one."""

    row: row_pb2.Row
    endpoint: Endpoint
    model: str | None = None


def parse_request(value: object, default_id: str) -> ParsedRequest:
    """The request in a decoded JSON value. Raises FieldError.

    `default_id` is the `custom_id` of a plain request that has none.
    """
    if not isinstance(value, Mapping):
        raise FieldError("", f'must be a JSON object such as {{"prompt": "..."}}, not {show(value)}')
    fields = cast("Mapping[str, object]", value)
    if "body" in fields or "url" in fields or "method" in fields:
        return _parse_batch(fields)
    return _parse_plain(fields, default_id)


def _parse_batch(fields: Mapping[str, object]) -> ParsedRequest:
    for key in fields:
        if key not in _BATCH_KEYS:
            raise FieldError(key, "is not part of a batch request (custom_id, method, url, body); remove it")
    for key in ("custom_id", "method", "url", "body"):
        if key not in fields:
            raise FieldError(key, "is missing; a batch request has custom_id, method, url and body")
    if fields["method"] != "POST":
        raise FieldError("method", f'must be "POST", not {show(fields["method"])}')
    body = fields["body"]
    if not isinstance(body, Mapping):
        raise FieldError("body", f"must be an object, not {show(body)}")
    endpoint = _endpoint(fields["url"])
    custom_id = _custom_id(fields["custom_id"])
    return _parse_body(cast("Mapping[str, object]", body), endpoint, custom_id)


def _endpoint(url: object) -> Endpoint:
    if url not in tuple(Endpoint):
        raise FieldError("url", f'must be "{Endpoint.CHAT}" or "{Endpoint.COMPLETION}", not {show(url)}')
    return Endpoint(cast("str", url))


def _parse_body(body: Mapping[str, object], endpoint: Endpoint, custom_id: str) -> ParsedRequest:
    wanted, other = ("messages", "prompt") if endpoint is Endpoint.CHAT else ("prompt", "messages")
    if other in body:
        problem = "is given together with" if wanted in body else "is not allowed: this endpoint takes"
        raise FieldError(f"body.{other}", f'{problem} "{wanted}"; {endpoint} takes "{wanted}" alone')
    if wanted not in body:
        raise FieldError(f"body.{wanted}", f"is missing; {endpoint} needs it")
    model = body.get("model")
    if model is not None and (not isinstance(model, str) or not model):
        raise FieldError("body.model", f"must be a model's id, not {show(model)}")
    rest = {key: value for key, value in body.items() if key not in ("model", wanted)}
    row = row_pb2.Row(custom_id=custom_id, sampling=_sampling(rest, endpoint))
    _set_input(row, wanted, body[wanted], "body.")
    return ParsedRequest(row, endpoint, model)


def _sampling(rest: dict[str, object], endpoint: Endpoint) -> row_pb2.SamplingParams | None:
    _drop_no_op(rest, "n", 1)
    _drop_no_op(rest, "stream", False)
    if endpoint is Endpoint.CHAT and "max_completion_tokens" in rest:
        newer = rest.pop("max_completion_tokens")
        if newer is not None and rest.get("max_tokens") not in (None, newer):
            raise FieldError("body.max_completion_tokens", 'contradicts "max_tokens"; give one of them')
        if newer is not None:
            rest["max_tokens"] = newer
    return build_sampling(rest, "body.") if rest else None


def _drop_no_op(rest: dict[str, object], key: str, only: int | bool) -> None:
    value = rest.pop(key, None)
    if value is not None and (type(value) is not type(only) or value != only):
        expected = str(only).lower()
        raise FieldError(f"body.{key}", f"must be {expected}, not {show(value)}", Reason.UNSUPPORTED_PARAMETER)


def _parse_plain(fields: Mapping[str, object], default_id: str) -> ParsedRequest:
    if "prompt" in fields and "messages" in fields:
        raise FieldError("messages", 'is given together with "prompt"; a row has one of them')
    if "prompt" not in fields and "messages" not in fields:
        raise FieldError("prompt", 'is missing; a row needs "prompt" or "messages"')
    for key in fields:
        if key not in PARAMETERS and key not in ("custom_id", "prompt", "messages"):
            supported = ", ".join(["custom_id", "prompt", "messages", *sorted(PARAMETERS)])
            raise FieldError(
                key, f"is not a supported parameter; remove it (supported: {supported})", Reason.UNSUPPORTED_PARAMETER
            )
    kind = "prompt" if "prompt" in fields else "messages"
    custom_id = default_id if fields.get("custom_id") is None else _custom_id(fields["custom_id"])
    values = {key: value for key, value in fields.items() if key in PARAMETERS}
    row = row_pb2.Row(custom_id=custom_id, sampling=build_sampling(values) if values else None)
    _set_input(row, kind, fields[kind], "")
    return ParsedRequest(row, Endpoint.CHAT if kind == "messages" else Endpoint.COMPLETION)


def _custom_id(value: object) -> str:
    if not isinstance(value, str):
        raise FieldError("custom_id", f"must be a string, not {show(value)}")
    if not 1 <= len(check_text(value, "custom_id").encode()) <= MAX_CUSTOM_ID_BYTES:
        raise FieldError("custom_id", f"must have 1 to {MAX_CUSTOM_ID_BYTES} bytes of UTF-8")
    return value


def _set_input(row: row_pb2.Row, kind: str, value: object, prefix: str) -> None:
    key = prefix + kind
    if kind == "prompt":
        if not isinstance(value, str):
            raise FieldError(key, f"must be a string (lists and token ids are not supported), not {show(value)}")
        if not value:
            raise FieldError(key, "is empty; a prompt has at least one character")
        row.prompt = check_text(value, key)
        return
    if not isinstance(value, list):
        raise FieldError(key, f"must be a list of messages, not {show(value)}")
    messages = cast("list[Any]", value)
    if not messages:
        raise FieldError(key, "is empty; a chat has at least one message")
    row.chat.messages.extend(_message(item, f"{key}[{index}]") for index, item in enumerate(messages))
    if messages[-1]["role"] != "user":
        raise FieldError(f"{key}[{len(messages) - 1}].role", 'must be "user": the model answers the last message')


def _message(item: object, key: str) -> row_pb2.ChatMessage:
    if not isinstance(item, Mapping):
        raise FieldError(key, f'must be an object {{"role": ..., "content": ...}}, not {show(item)}')
    fields = cast("Mapping[str, object]", item)
    for name in fields:
        if name not in ("role", "content"):
            raise FieldError(f"{key}.{name}", "is not supported; remove it", Reason.UNSUPPORTED_PARAMETER)
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES:
        raise FieldError(f"{key}.role", f"must be one of {', '.join(ROLES)}, not {show(role)}")
    if not isinstance(content, str):
        raise FieldError(f"{key}.content", f"must be a string (content parts are not supported), not {show(content)}")
    return row_pb2.ChatMessage(role=cast("str", role), content=check_text(content, f"{key}.content"))

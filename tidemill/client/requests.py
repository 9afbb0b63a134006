"""One request as a JSON object, in OpenAI's batch form or plain, made into a `Row`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from tidemill.client import inputs
from tidemill.client.openai_body import check_encoding, own_parameters
from tidemill.client.parameters import PARAMETERS, FieldError, build_sampling, check_text, show
from tidemill.errors import Reason
from tidemill.v1 import row_pb2

MAX_CUSTOM_ID_BYTES = 256
_BATCH_KEYS = frozenset({"custom_id", "method", "url", "body"})


class Endpoint(StrEnum):
    """Which OpenAI endpoint a request is for; it decides the shape of the answer."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"
    EMBEDDING = "/v1/embeddings"
    CLASSIFICATION = "/classify"
    SCORE = "/v1/score"


# The keys of a request that say what it asks: in a batch body, and beside the parameters of a plain line.
_BODY_INPUTS: dict[Endpoint, tuple[str, ...]] = {
    Endpoint.CHAT: ("messages",),
    Endpoint.COMPLETION: ("prompt",),
    Endpoint.EMBEDDING: ("input",),
    Endpoint.CLASSIFICATION: ("input",),
    Endpoint.SCORE: ("queries", "documents"),
}
_PLAIN_INPUTS: dict[Endpoint, tuple[str, ...]] = {
    Endpoint.COMPLETION: ("prompt",),
    Endpoint.CHAT: ("messages",),
    Endpoint.EMBEDDING: ("embed",),
    Endpoint.CLASSIFICATION: ("classify",),
    Endpoint.SCORE: ("query", "document"),
}


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
        known = ", ".join(f'"{item}"' for item in Endpoint)
        raise FieldError("url", f"must be one of {known}, not {show(url)}")
    return Endpoint(cast("str", url))


def _parse_body(body: Mapping[str, object], endpoint: Endpoint, custom_id: str) -> ParsedRequest:
    wanted = _BODY_INPUTS[endpoint]
    for other in sorted({key for keys in _BODY_INPUTS.values() for key in keys} - set(wanted)):
        if other in body:
            problem = "is given together with" if wanted[0] in body else "is not allowed: this endpoint takes"
            raise FieldError(f"body.{other}", f'{problem} "{wanted[0]}"; {endpoint} takes {_quoted(wanted)} alone')
    for key in wanted:
        if key not in body:
            raise FieldError(f"body.{key}", f"is missing; {endpoint} needs it")
    model = body.get("model")
    if model is not None and (not isinstance(model, str) or not model):
        raise FieldError("body.model", f"must be a model's id, not {show(model)}")
    rest = {key: value for key, value in body.items() if key != "model" and key not in wanted}
    row = row_pb2.Row(custom_id=custom_id)
    if endpoint in (Endpoint.CHAT, Endpoint.COMPLETION):
        rest = own_parameters(rest, chat=endpoint is Endpoint.CHAT)
    elif endpoint is Endpoint.EMBEDDING:
        check_encoding(rest)
    _fill(row, endpoint, {f"body.{key}": body[key] for key in wanted}, rest, "body.")
    return ParsedRequest(row, endpoint, model)


def _parse_plain(fields: Mapping[str, object], default_id: str) -> ParsedRequest:
    endpoint = _plain_endpoint(fields)
    wanted = _PLAIN_INPUTS[endpoint]
    custom_id = default_id if fields.get("custom_id") is None else _custom_id(fields["custom_id"])
    row = row_pb2.Row(custom_id=custom_id)
    rest = {key: value for key, value in fields.items() if key != "custom_id" and key not in wanted}
    _fill(row, endpoint, {key: fields[key] for key in wanted}, rest, "")
    return ParsedRequest(row, endpoint)


def _plain_endpoint(fields: Mapping[str, object]) -> Endpoint:
    found = [(endpoint, key) for endpoint, keys in _PLAIN_INPUTS.items() for key in keys if key in fields]
    if not found:
        choices = " or ".join(_quoted(keys) for keys in _PLAIN_INPUTS.values())
        raise FieldError("prompt", f"is missing; a row needs {choices}")
    (endpoint, first), (last_endpoint, last) = found[0], found[-1]
    if last_endpoint is not endpoint:
        raise FieldError(last, f'is given together with "{first}"; a row has one of them')
    for key in _PLAIN_INPUTS[endpoint]:
        if key not in fields:
            raise FieldError(key, f'is missing; it goes with "{first}"')
    return endpoint


def _fill(
    row: row_pb2.Row, endpoint: Endpoint, asked: Mapping[str, object], rest: dict[str, object], prefix: str
) -> None:
    """Set the row's input from what is `asked`, by key, and its parameters from `rest`, named below `prefix`."""
    keys, values = tuple(asked), tuple(asked.values())
    dimensions = rest.pop("dimensions", None) if endpoint is Endpoint.EMBEDDING else None
    if endpoint in (Endpoint.CHAT, Endpoint.COMPLETION):
        if rest:
            row.sampling.CopyFrom(build_sampling(rest, prefix))
    elif rest:
        _refuse_parameter(next(iter(rest)), endpoint, prefix)
    match endpoint:
        case Endpoint.CHAT:
            inputs.set_chat(row, values[0], keys[0])
        case Endpoint.COMPLETION:
            inputs.set_prompt(row, values[0], keys[0])
        case Endpoint.EMBEDDING:
            inputs.set_embedding(row, values[0], keys[0], dimensions, f"{prefix}dimensions")
        case Endpoint.CLASSIFICATION:
            inputs.set_classification(row, values[0], keys[0])
        case Endpoint.SCORE:
            inputs.set_score(row, (values[0], values[1]), (keys[0], keys[1]))


def _refuse_parameter(name: str, endpoint: Endpoint, prefix: str) -> None:
    takes = "dimensions alone" if endpoint is Endpoint.EMBEDDING else "no parameters"
    known = " is for prompts and chats" if name in PARAMETERS else " is not a supported parameter"
    problem = f"{known.strip()}; remove it (a row of this kind takes {takes})"
    raise FieldError(prefix + name, problem, Reason.UNSUPPORTED_PARAMETER)


def _quoted(keys: tuple[str, ...]) -> str:
    return " and ".join(f'"{key}"' for key in keys)


def _custom_id(value: object) -> str:
    if not isinstance(value, str):
        raise FieldError("custom_id", f"must be a string, not {show(value)}")
    if not 1 <= len(check_text(value, "custom_id").encode()) <= MAX_CUSTOM_ID_BYTES:
        raise FieldError("custom_id", f"must have 1 to {MAX_CUSTOM_ID_BYTES} bytes of UTF-8")
    return value

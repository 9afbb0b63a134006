"""One versioned encoding of a row's request, between the protobuf of the wire and the bytes in a segment.

The encoding is JSON with sorted keys, no spaces and unescaped text, so equal requests have equal bytes.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from tidemill.v1 import model_service_pb2, row_pb2

ENCODING_VERSION = 1
Task = Literal["prompt", "chat", "embedding", "classification", "score"]
# What `json.dumps` itself uses where it need not escape what is beyond ASCII.
_quoted = cast("Callable[[str], str]", cast("Any", json.encoder).encode_basestring)
SamplingValue = bool | int | float | str | list[str]

MODEL_TASKS: "Mapping[str, model_service_pb2.Task.ValueType]" = {
    "prompt": model_service_pb2.TASK_GENERATE,
    "chat": model_service_pb2.TASK_GENERATE,
    "embedding": model_service_pb2.TASK_EMBED,
    "classification": model_service_pb2.TASK_CLASSIFY,
    "score": model_service_pb2.TASK_SCORE,
}
"""What a model must be able to do for each kind of row."""

_FLOATS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
_INTEGERS = ("top_k", "max_tokens", "seed", "n", "logprobs", "min_tokens")
SAMPLING_FIELDS = (*_FLOATS, *_INTEGERS, "ignore_eos", "json_schema", "stop")


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Request:
    """A decoded row: its kind, what that kind asks, and the sampling values of its own.

    Attributes:
        prompt: of a `prompt`.
        messages: of a `chat`.
        text: of an `embedding` or `classification`.
        dimensions: of an `embedding`; None for the model's own number.
        query: of a `score`, as is `document`.
    """

    task: Task
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    sampling: Mapping[str, SamplingValue] = field(default_factory=dict[str, SamplingValue])
    text: str = ""
    dimensions: int | None = None
    query: str = ""
    document: str = ""


def sampling_values(sampling: row_pb2.SamplingParams) -> dict[str, SamplingValue]:
    """The values that are set, with their types: whole numbers stay `int`, fractions are `float`."""
    # Only what is set is looked at: this runs for every row.
    values: dict[str, SamplingValue] = {item.name: value for item, value in sampling.ListFields()}
    if "stop" in values:
        values["stop"] = list(sampling.stop)
    return values


def merge_sampling(
    defaults: row_pb2.SamplingParams, overrides: Mapping[str, SamplingValue]
) -> dict[str, SamplingValue]:
    """The values that apply to a row: the job's, replaced field by field by the row's."""
    return {**sampling_values(defaults), **overrides}


def encode_prompt(prompt: str) -> bytes:
    """Bytes of the request that is a prompt without sampling values of its own: the shape of most rows, made without a
    dictionary."""
    return f'{{"prompt":{_quoted(prompt)},"task":"prompt","v":{ENCODING_VERSION}}}'.encode()


def encode_request(row: row_pb2.Row) -> bytes:
    """Bytes of a row's request; they depend on its content alone. The row must have an input."""
    fields: dict[str, Any] = {"v": ENCODING_VERSION}
    match row.WhichOneof("input"):
        case "prompt":
            fields |= {"task": "prompt", "prompt": row.prompt}
        case "chat":
            messages = [{"role": item.role, "content": item.content} for item in row.chat.messages]
            fields |= {"task": "chat", "messages": messages}
        case "embedding":
            fields |= {"task": "embedding", "text": row.embedding.text}
            if row.embedding.HasField("dimensions"):
                fields["dimensions"] = row.embedding.dimensions
        case "classification":
            fields |= {"task": "classification", "text": row.classification.text}
        case "score":
            fields |= {"task": "score", "query": row.score.query, "document": row.score.document}
        case _:
            raise ValueError("a row without input has no encoding")
    if sampling := sampling_values(row.sampling):
        fields["sampling"] = sampling
    return _canonical_json(fields)


def decode_request(data: bytes) -> Request:
    """The request behind stored bytes; ValueError when they are not of a known version."""
    fields = json.loads(data)
    if fields.get("v") != ENCODING_VERSION:
        raise ValueError(
            f"request encoding {fields.get('v')!r} is unknown: this build reads version {ENCODING_VERSION}"
        )
    if fields["task"] not in MODEL_TASKS:
        raise ValueError(f"request of kind {fields['task']!r} is unknown: this build knows {', '.join(MODEL_TASKS)}")
    return Request(
        task=fields["task"],
        prompt=fields.get("prompt", ""),
        messages=tuple(Message(item["role"], item["content"]) for item in fields.get("messages", ())),
        sampling=_typed_sampling(fields.get("sampling", {})),
        text=fields.get("text", ""),
        dimensions=_whole("dimensions", fields["dimensions"]) if "dimensions" in fields else None,
        query=fields.get("query", ""),
        document=fields.get("document", ""),
    )


def decode_row(custom_id: str, data: bytes) -> row_pb2.Row:
    """The row that `encode_request` made `data` of; ValueError when the bytes are not of a known version."""
    request = decode_request(data)
    row = row_pb2.Row(custom_id=custom_id)
    match request.task:
        case "prompt":
            row.prompt = request.prompt
        case "chat":
            messages = (row_pb2.ChatMessage(role=item.role, content=item.content) for item in request.messages)
            row.chat.messages.extend(messages)
        case "embedding":
            row.embedding.CopyFrom(row_pb2.EmbeddingInput(text=request.text, dimensions=request.dimensions))
        case "classification":
            row.classification.CopyFrom(row_pb2.ClassificationInput(text=request.text))
        case "score":
            row.score.CopyFrom(row_pb2.ScoreInput(query=request.query, document=request.document))
    if request.sampling:
        row.sampling.CopyFrom(row_pb2.SamplingParams(**cast("Any", request.sampling)))
    return row


def _typed_sampling(values: Mapping[str, Any]) -> dict[str, SamplingValue]:
    # JSON keeps 1.0 and 1 apart, yet other writers may not; a float in an integer field kills vLLM's input thread.
    typed: dict[str, SamplingValue] = {}
    for name, value in values.items():
        if name in _FLOATS:
            typed[name] = float(value)
        elif name in _INTEGERS:
            typed[name] = _whole(name, value)
        elif name == "ignore_eos":
            typed[name] = bool(value)
        elif name == "json_schema":
            typed[name] = str(value)
        elif name == "stop":
            typed[name] = [str(item) for item in value]
        else:
            raise ValueError(f"sampling field {name!r} is unknown")
    return typed


def _whole(name: str, value: float) -> int:
    if not math.isfinite(value) or int(value) != value:
        raise ValueError(f"sampling field {name!r} must be a whole number, not {value!r}")
    return int(value)


def encode_spec(model_digest: str, template_digest: str, sampling: row_pb2.SamplingParams) -> bytes:
    """Bytes of what a job asked of the model, for `tidemill.digests.spec_digest`.

    The execution mode is left out: both modes answer alike.
    """
    fields = {
        "v": ENCODING_VERSION,
        "model": model_digest,
        "sampling": sampling_values(sampling),
        "template": template_digest,
    }
    return _canonical_json(fields)


def _canonical_json(fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()

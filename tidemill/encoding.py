"""One versioned encoding of a row's request, between the protobuf of the wire and the bytes in a segment.

The encoding is JSON with sorted keys, no spaces and unescaped text, so equal requests have equal bytes.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from tidemill.v1 import row_pb2

ENCODING_VERSION = 1
Task = Literal["prompt", "chat"]
SamplingValue = int | float | list[str]

_FLOATS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
_INTEGERS = ("top_k", "max_tokens", "seed")
SAMPLING_FIELDS = (*_FLOATS, *_INTEGERS, "stop")


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Request:
    """A decoded row: a prompt or a chat, and the row's own sampling values."""

    task: Task
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    sampling: Mapping[str, SamplingValue] = field(default_factory=dict[str, SamplingValue])


def sampling_values(sampling: row_pb2.SamplingParams) -> dict[str, SamplingValue]:
    """The values that are set, with their types: whole numbers stay `int`, fractions are `float`."""
    values: dict[str, SamplingValue] = {}
    for name in _FLOATS:
        if sampling.HasField(cast("Any", name)):
            values[name] = float(getattr(sampling, name))
    for name in _INTEGERS:
        if sampling.HasField(cast("Any", name)):
            values[name] = int(getattr(sampling, name))
    if sampling.stop:
        values["stop"] = list(sampling.stop)
    return values


def merge_sampling(
    defaults: row_pb2.SamplingParams, overrides: Mapping[str, SamplingValue]
) -> dict[str, SamplingValue]:
    """The values that apply to a row: the job's, replaced field by field by the row's."""
    return {**sampling_values(defaults), **overrides}


def encode_request(row: row_pb2.Row) -> bytes:
    """Bytes of a row's request; they depend on its content alone. The row must have an input."""
    fields: dict[str, Any] = {"v": ENCODING_VERSION}
    match row.WhichOneof("input"):
        case "prompt":
            fields |= {"task": "prompt", "prompt": row.prompt}
        case "chat":
            messages = [{"role": item.role, "content": item.content} for item in row.chat.messages]
            fields |= {"task": "chat", "messages": messages}
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
    messages = tuple(Message(item["role"], item["content"]) for item in fields.get("messages", ()))
    return Request(fields["task"], fields.get("prompt", ""), messages, _typed_sampling(fields.get("sampling", {})))


def decode_row(custom_id: str, data: bytes) -> row_pb2.Row:
    """The row that `encode_request` made `data` of; ValueError when the bytes are not of a known version."""
    request = decode_request(data)
    row = row_pb2.Row(custom_id=custom_id)
    if request.task == "prompt":
        row.prompt = request.prompt
    else:
        row.chat.messages.extend(row_pb2.ChatMessage(role=item.role, content=item.content) for item in request.messages)
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

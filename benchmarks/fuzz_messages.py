"""Messages of any type over its descriptor, and bytes that once were one: what a fuzzer sends.

Values are drawn near what a service looks at (names that exist, bounds of numbers, texts with a meaning) and far from
it, so that calls get past the first check often and fail it often.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

__all__ = ["Corpus", "damaged", "messages", "spoiled"]

Corpus = Mapping[str, Sequence[str]]
"""Texts worth sending, by the name of the field."""

_DEPTH = 4
_TEXTS = ["", " ", "\0", "%s%n", "../../etc/passwd", "tenants/", "\U0001f600" * 40, "\u202e", "x" * 300, "a/b/c", "*"]
_LONG = [5_000, 70_000]
_NESTED = '{"properties":{"a":' * 20 + "{}" + "}}" * 20
_SCHEMAS = [
    '{"type":"string"}',
    _NESTED,
    '{"enum":' + json.dumps(list(range(6000))) + "}",
    '{"$ref":"#"}',
    '{"$defs":{"a":{"properties":{"b":{"$ref":"#/$defs/a"}}}},"$ref":"#/$defs/a"}',
    '{"pattern":"(((a{99}){99}){99}){99}"}',
    '{"pattern":"(a+)+$"}',
    "[" * 3000,
    "{",
    '{"const":"\\ud800"}',
]
_MEANT: Corpus = {
    "json_schema": _SCHEMAS,
    "role": ["user", "system", "assistant"],
    "custom_id": ["a", "b", "c" * 256, "d" * 257],
    "paths": ["service_class", "complete_by_time", "on_deadline", "escalation", "text", "embedding", "a.b", "state"],
    "service": ["", "tidemill.v1.JobService", "nonesuch"],
}
_BOUNDS = {32: 2**31, 64: 2**63}
_SMALL = [0, 1, 2, 3, 60, 1000, 1001, 65_536, -1, -2]
_FLOATS = [0.0, 0.5, 1.0, 2.0, -2.0, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, -0.0]

_F = FieldDescriptor
_INTEGERS: dict[int, tuple[int, bool]] = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), (32, True)),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), (64, True)),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), (32, False)),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), (64, False)),
}


def messages(kind: type[Message], corpus: Corpus) -> st.SearchStrategy[Message]:
    """Messages of a type. Fields of `corpus` mostly take texts from there."""
    return _message(cast("Descriptor", kind.DESCRIPTOR), {**_MEANT, **corpus}, _DEPTH)


@st.composite
def spoiled(draw: st.DrawFn, example: Message, corpus: Corpus) -> Message:
    """A copy of a message with one or two of its fields, or of those below, drawn anew or taken away."""
    copy = type(example)()
    copy.CopyFrom(example)
    for _ in range(draw(st.integers(1, 2))):
        inner = _descended(draw, copy)
        field = draw(st.sampled_from([None, *inner.DESCRIPTOR.fields]))
        if field is not None:
            inner.ClearField(field.name)
            if draw(st.integers(0, 4)):
                _set(inner, field.name, draw(_field(cast("FieldDescriptor", field), {**_MEANT, **corpus}, _DEPTH - 1)))
    return copy


def _descended(draw: st.DrawFn, message: Message) -> Message:
    """The message, or one below it."""
    while draw(st.booleans()):
        below = [value for field, value in message.ListFields() if field.message_type is not None]
        singles = [value for value in below if isinstance(value, Message)]
        many = [each for value in below if not isinstance(value, Message) and not _is_map(value) for each in value]
        if not singles and not many:
            break
        message = draw(st.sampled_from([*singles, *many]))
    return message


def _is_map(value: Any) -> bool:
    return hasattr(value, "keys")


def _message(descriptor: Descriptor, corpus: Corpus, depth: int) -> st.SearchStrategy[Message]:
    kind = GetMessageClass(descriptor)
    fields = {
        field.name: _field(field, corpus, depth - 1)
        for field in descriptor.fields
        if depth > 1 or field.message_type is None
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _built(kind, values))


def _built(kind: type[Message], values: Mapping[str, Any]) -> Message:
    built = kind()
    for name, value in values.items():
        _set(built, name, value)
    return built


def _set(message: Message, name: str, value: Any) -> None:
    target = getattr(message, name)
    if isinstance(value, Message):
        target.CopyFrom(value)
    elif isinstance(value, list):
        target.extend(value)
    elif isinstance(value, dict):
        _fill_map(target, value)
    else:
        setattr(message, name, value)


def _fill_map(target: Any, values: Mapping[Any, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Message):
            target[key].CopyFrom(value)
        else:
            target[key] = value


def _field(field: FieldDescriptor, corpus: Corpus, depth: int) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        key, value = kind.fields_by_name["key"], kind.fields_by_name["value"]
        return st.dictionaries(_value(key, corpus, depth), _value(value, corpus, depth), max_size=3)
    value = _value(field, corpus, depth)
    return st.lists(value, max_size=4) if field.is_repeated else value


def _value(field: FieldDescriptor, corpus: Corpus, depth: int) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None:
        return st.deferred(lambda: _message(kind, corpus, depth))
    if field.enum_type is not None:
        return st.integers(-1, len(field.enum_type.values) + 1)
    if field.type in _INTEGERS:
        return _integers(*_INTEGERS[field.type])
    return _PLAIN[field.type](field.name, corpus)


def _integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    top = _BOUNDS[bits] if signed else 2 * _BOUNDS[bits]
    low = -top if signed else 0
    near = [number for number in (*_SMALL, low, top - 1) if low <= number < top]
    return st.one_of(st.sampled_from(near), st.integers(low, top - 1))


def _texts(name: str, corpus: Corpus) -> st.SearchStrategy[str]:
    meant = [st.sampled_from(corpus[name])] * 3 if corpus.get(name) else []
    long = st.sampled_from(_LONG).map(lambda length: "y" * length)
    return st.one_of(*meant, st.sampled_from(_TEXTS), st.text(max_size=40), long)


_PLAIN: dict[int, Callable[[str, Corpus], st.SearchStrategy[Any]]] = {
    _F.TYPE_STRING: _texts,
    _F.TYPE_BYTES: lambda _name, _corpus: st.binary(max_size=80),
    _F.TYPE_BOOL: lambda _name, _corpus: st.booleans(),
    _F.TYPE_DOUBLE: lambda _name, _corpus: st.one_of(st.sampled_from(_FLOATS), st.floats()),
    _F.TYPE_FLOAT: lambda _name, _corpus: st.one_of(st.sampled_from(_FLOATS[:-3]), st.floats(width=32)),
}


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some of them changed, cut off, doubled or put in; often no message any more."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        end = min(len(data), place + draw(st.integers(0, 16)))
        data = draw(
            st.sampled_from(
                [
                    data[:place],
                    data[:place] + data[end:],
                    data[:end] + data[place:],
                    data[:place] + b"\xff\xfe\x80" + data[place:],
                    # A group that never ends, a length beyond the end, and field 127, which nobody knows.
                    data[:place] + b"\x0b" * 8 + data[place:],
                    data[:place] + b"\x0a\xff\xff\xff\xff\x0f" + data[place:],
                    data + b"\xf8\x07\x01",
                ]
            )
        )
    return data

"""Between the core's records and plain JSON values, by field name and type.

A dataclass becomes the list of its fields' values; the names of the fields are kept once, in a schema. On the way back
a field that is missing takes its default, and one that this version does not know is an error: it would be lost.
Bytes are written as Latin-1 text, and integers that stand for sets as hexadecimal text.
"""

import sys
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from google.protobuf.message import Message

from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.v1 import job_pb2, job_service_pb2

Schema = dict[str, list[str]]
"""Field names by dataclass."""

Convert = Callable[[Any], Any]

_LARGEST = 2**63
_NAMES = {module.__name__.rpartition(".")[2]: module for module in (job_pb2, job_service_pb2, ledger_pb2, records_pb2)}


class UnknownFieldError(Exception):
    """The values were written by a version that knows more than this one."""


@cache
def hints(owner: type) -> dict[str, Any]:
    """Types of a dataclass's fields."""
    return get_type_hints(owner, localns=_NAMES)


def schema_of(kind: Any) -> Schema:
    """The dataclasses that values of a type consist of."""
    found: Schema = {}
    _collect(kind, found)
    return found


def _collect(kind: Any, found: Schema) -> None:
    if isinstance(kind, type) and is_dataclass(kind) and kind.__name__ not in found:
        types = hints(kind)
        found[kind.__name__] = [item.name for item in fields(kind)]
        for name in found[kind.__name__]:
            _collect(types[name], found)
    for argument in get_args(kind):
        _collect(argument, found)


@cache
def copier(kind: Any) -> Convert | None:
    """What copies the containers in a value, so that it no longer changes; None where nothing can change."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is dict:
        return _copy_dict(copier(arguments[1]))
    if origin in (list, set):
        return _copy_items(origin, copier(arguments[0]))
    if isinstance(kind, type) and is_dataclass(kind) and not _frozen(kind):
        return _copy_fields(kind)
    return None


def _frozen(kind: Any) -> bool:
    return bool(kind.__dataclass_params__.frozen)


def _copy_dict(inner: Convert | None) -> Convert:
    if inner is None:
        return dict
    return lambda value: {key: inner(item) for key, item in value.items()}


def _copy_items(origin: Any, inner: Convert | None) -> Convert:
    if inner is None:
        return origin
    return lambda value: origin(inner(item) for item in value)


def _copy_fields(kind: type) -> Convert:
    inner = {name: copier(found) for name, found in hints(kind).items()}

    def convert(value: Any) -> Any:
        return kind(
            **{name: copy(getattr(value, name)) if copy else getattr(value, name) for name, copy in inner.items()}
        )

    return convert


def packed(kind: Any, value: Any) -> Any:
    """A value of a type as a JSON value."""
    convert = packer(kind)
    return convert(value) if convert else value


@cache
def packer(kind: Any) -> Convert | None:
    """What turns values of a type into JSON values; None where they are such already.

    Raises:
        TypeError: values of the type cannot be written.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _optional(packer(_only(kind)))
    if origin is tuple and Ellipsis not in arguments:
        return _pack_tuple([packer(argument) for argument in arguments])
    if origin in (list, tuple, set):
        return _pack_items(packer(arguments[0]))
    if origin is dict:
        return _pack_dict(packer(arguments[0]), packer(arguments[1]))
    return _pack_plain(kind)


def _pack_plain(kind: Any) -> Convert | None:
    if kind in (str, float, bool):
        return None
    if kind is int:
        return lambda value: value if -_LARGEST < value < _LARGEST else hex(value)
    if kind is bytes:
        return lambda value: value.decode("latin-1")
    if isinstance(kind, type):
        if issubclass(kind, Enum):
            return lambda value: value.value
        if issubclass(kind, Message):
            return lambda value: value.SerializeToString().decode("latin-1")
        if is_dataclass(kind):
            return _pack_fields(kind)
    raise TypeError(f"values of {kind} cannot be written: give it a dataclass, or derive it from the records")


def _only(kind: Any) -> Any:
    """T of `T | None`."""
    (found,) = (argument for argument in get_args(kind) if argument is not NoneType)
    return found


def _optional(inner: Convert | None) -> Convert | None:
    return inner and (lambda value: None if value is None else inner(value))


def _pack_tuple(inner: list[Convert | None]) -> Convert:
    return lambda value: [convert(item) if convert else item for convert, item in zip(inner, value, strict=True)]


def _pack_items(inner: Convert | None) -> Convert:
    if inner is None:
        return list
    return lambda value: [inner(item) for item in value]


def _pack_dict(key: Convert | None, value: Convert | None) -> Convert:
    def convert(items: dict[Any, Any]) -> list[Any]:
        return [[key(k) if key else k, value(v) if value else v] for k, v in items.items()]

    return convert


def _pack_fields(kind: type) -> Convert:
    types = hints(kind)
    names = [item.name for item in fields(kind)]
    special = [(place, inner) for place, name in enumerate(names) if (inner := packer(types[name]))]
    if len(names) == 1:
        return lambda value, name=names[0]: [special[0][1](getattr(value, name)) if special else getattr(value, name)]
    read = attrgetter(*names)

    def convert(value: Any) -> list[Any]:
        values = list(read(value))
        for place, inner in special:
            values[place] = inner(values[place])
        return values

    return convert


class Unpacker:
    """Turns JSON values back into records, as the schema says that they were written."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._known: dict[Hashable, Convert | None] = {}

    def of(self, kind: Any) -> Convert | None:
        """What reads values of a type; None where there is nothing to do.

        Raises:
            UnknownFieldError: the schema has a field that this version lacks.
        """
        if kind not in self._known:
            self._known[kind] = self._make(kind)
        return self._known[kind]

    def _make(self, kind: Any) -> Convert | None:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            return _optional(self.of(_only(kind)))
        if origin is tuple and Ellipsis not in arguments:
            inner = _pack_tuple([self.of(argument) for argument in arguments])
            return lambda value: tuple(inner(value))
        if origin in (list, tuple, set):
            return _read_items(origin, self.of(arguments[0]))
        if origin is dict:
            return _read_dict(self.of(arguments[0]), self.of(arguments[1]))
        if isinstance(kind, type) and is_dataclass(kind):
            return self._fields(kind)
        return _read_plain(kind)

    def _fields(self, kind: type) -> Convert:
        types = hints(kind)
        names = self._schema[kind.__name__]
        if unknown := [name for name in names if name not in types]:
            raise UnknownFieldError(f"{kind.__name__}.{unknown[0]}")
        special = [(place, inner) for place, name in enumerate(names) if (inner := self.of(types[name]))]
        in_order = names == [item.name for item in fields(kind)]

        def convert(values: list[Any]) -> Any:
            for place, inner in special:
                values[place] = inner(values[place])
            return kind(*values) if in_order else kind(**dict(zip(names, values, strict=True)))

        return convert


def _read_items(origin: Any, inner: Convert | None) -> Convert:
    if inner is None:
        return origin
    return lambda value: origin(map(inner, value))


def _read_dict(key: Convert | None, value: Convert | None) -> Convert:
    def convert(items: list[Any]) -> dict[Any, Any]:
        return {key(k) if key else k: value(v) if value else v for k, v in items}

    return convert


def _read_plain(kind: Any) -> Convert | None:
    if kind is str:
        # Names, tenants and models recur in many records.
        return sys.intern
    if kind in (float, bool):
        return None
    if kind is int:
        return lambda value: int(value, 16) if isinstance(value, str) else value
    if kind is bytes:
        return lambda value: value.encode("latin-1")
    if issubclass(kind, Message):
        return lambda value: kind.FromString(value.encode("latin-1"))
    return kind

"""Whether a text is a JSON Schema that an engine may be given: its form and its size, not what an engine supports.

The rules are those of JSON Schema 2020-12 (https://json-schema.org/draft/2020-12) for the keywords that shape an
answer; keywords that are not listed here are annotations and pass. Everything takes time in proportion to the text.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NoReturn, cast
from urllib.parse import unquote

from tidemill.pattern_cost import pattern_cost

__all__ = ["MAX_SCHEMA_BYTES", "MAX_SCHEMA_DEPTH", "SchemaFaultError", "read_schema", "schema_problem"]

MAX_SCHEMA_BYTES = 64 << 10
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMAS = 2000
MAX_ENUM_VALUES = 5000
MAX_NAME = 1024
"""Characters of a key: paths to schemas are made of them, one for each schema below."""
MAX_COUNT = 100_000
"""Of characters, items or properties."""
MAX_PATTERN_COST = 1000
"""Atoms of a pattern once its counted repetitions are written out, as engines do."""

_SCHEMA_KEYS = frozenset(
    {"additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_MAP_KEYS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_LIST_KEYS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_COUNTED = ("Contains", "Items", "Length", "Properties")
_COUNT_KEYS = frozenset(f"{end}{noun}" for end in ("min", "max") for noun in _COUNTED)
_NUMBER_KEYS = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"})
_PAIRS = tuple((f"min{noun}", f"max{noun}") for noun in _COUNTED)
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_REFUSED = frozenset({"$dynamicRef", "$recursiveRef"})


class SchemaFaultError(Exception):
    """Where a schema is wrong, and how."""


@lru_cache(maxsize=256)
def schema_problem(text: str) -> str | None:
    """What is wrong with a schema, with the limit and the remedy; None when there is nothing."""
    try:
        _check_references(dict(_walk(read_schema(text))))
    except SchemaFaultError as fault:
        return str(fault)
    return None


def read_schema(text: str) -> dict[str, Any]:
    """The JSON object in a schema's text, whatever it says.

    Raises:
        SchemaFaultError: the text is too long, no JSON object, or nested too deep.
    """
    size = len(text.encode())
    if not 1 <= size <= MAX_SCHEMA_BYTES:
        _fault("", f"the schema has {size} bytes; it must have 1 to {MAX_SCHEMA_BYTES}: shorten it")
    root = _parse(text)
    if not isinstance(root, dict):
        _fault("", f"a schema is a JSON object, not {type(root).__name__}")
    _check_depth(root)
    return cast("dict[str, Any]", root)


def _parse(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        _too_deep()
    except UnicodeEncodeError:
        _fault("", "a string holds half of a surrogate pair; use whole characters")
    except ValueError as exc:
        _fault("", f"it is not JSON: {exc}")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        _fault("", f"key {twice[:64]!r} stands twice in one object")
    if any(len(key) > MAX_NAME for key in value):
        _fault("", f"a key has more than {MAX_NAME} characters; shorten it")
    return value


def _no_constant(name: str) -> NoReturn:
    _fault("", f"{name} is not JSON")


def _check_depth(root: Any) -> None:
    """Depth by levels of nesting; without recursion, so that depth itself does no harm."""
    level = [root]
    for _ in range(MAX_SCHEMA_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    _too_deep()


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []


def _walk(root: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each schema inside with its JSON pointer, once its own keywords are right."""
    waiting, schemas, values = [("", cast("Any", root))], 0, 0
    while waiting:
        pointer, schema = waiting.pop()
        schemas += 1
        if schemas > MAX_SCHEMAS:
            _fault("", f"it holds more than {MAX_SCHEMAS} schemas; split the question or make the answer simpler")
        yield pointer, schema
        if isinstance(schema, bool):
            continue
        if not isinstance(schema, dict):
            _fault(pointer, "a schema is an object, true or false")
        fields = cast("dict[str, Any]", schema)
        _check_keywords(pointer, fields)
        values += len(fields.get("enum", ()))
        if values > MAX_ENUM_VALUES:
            _fault(pointer, f"the schema lists more than {MAX_ENUM_VALUES} enum values in all; list fewer")
        waiting.extend(_subschemas(pointer, fields))


def _subschemas(pointer: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        place = f"{pointer}/{key}"
        if key in _SCHEMA_KEYS:
            yield place, value
        elif key in _MAP_KEYS:
            if not isinstance(value, dict):
                _fault(place, "must be an object of schemas")
            for name, item in cast("dict[str, Any]", value).items():
                if key == "patternProperties" and not _is_pattern(name):
                    _fault(place, f"has a pattern that must be {_RULES['pattern'][0]}")
                yield f"{place}/{name.replace('~', '~0').replace('/', '~1')}", item
        elif key in _LIST_KEYS:
            if not isinstance(value, list) or not value:
                _fault(place, "must be a list of schemas, one or more")
            for index, item in enumerate(cast("list[Any]", value)):
                yield f"{place}/{index}", item


def _check_keywords(pointer: str, schema: Mapping[str, Any]) -> None:
    for key, value in schema.items():
        if key in _REFUSED:
            _fault(f"{pointer}/{key}", "is not supported; use $ref")
        if rule := _RULES.get(key):
            wanted, holds = rule
            if not holds(value):
                _fault(f"{pointer}/{key}", f"must be {wanted}")
    for low, high in _PAIRS:
        if low in schema and high in schema and schema[low] > schema[high]:
            _fault(f"{pointer}/{low}", f"is {schema[low]}, above {high}, {schema[high]}; nothing can match")


def _check_references(pointers: Mapping[str, Any]) -> None:
    """Each `$ref` leads to a schema of the text, and none back to itself without a value in between."""
    ahead: dict[str, list[str]] = {}
    for pointer, schema in pointers.items():
        ahead[pointer] = _in_place(pointer, schema) if isinstance(schema, dict) else []
        if isinstance(schema, dict) and "$ref" in schema:
            target = _target(pointer, cast("dict[str, Any]", schema)["$ref"])
            if target not in pointers:
                _fault(f"{pointer}/$ref", "leads to no schema of this text; define it below $defs")
            ahead[pointer].append(target)
    _check_cycles(ahead)


def _target(pointer: str, reference: str) -> str:
    if not reference.startswith("#"):
        _fault(f"{pointer}/$ref", "must begin with #: nothing is fetched, so put the schema below $defs")
    return unquote(reference[1:])


def _in_place(pointer: str, schema: Mapping[str, Any]) -> list[str]:
    """Schemas that apply to the same value as this one."""
    lists = [
        f"{pointer}/{key}/{index}" for key in ("allOf", "anyOf", "oneOf") for index in range(len(schema.get(key, ())))
    ]
    return lists + [f"{pointer}/{key}" for key in ("if", "then", "else", "not") if key in schema]


def _check_cycles(ahead: Mapping[str, list[str]]) -> None:
    done: set[str] = set()
    for start in ahead:
        path: dict[str, None] = {}
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                del path[node]
                done.add(node)
            elif node in path:
                _fault(f"{node}/$ref", "leads back to itself without a property or an item in between; no answer fits")
            elif node not in done:
                path[node] = None
                stack.append((node, True))
                stack.extend((child, False) for child in ahead[node])


def _fault(pointer: str, problem: str) -> NoReturn:
    raise SchemaFaultError(f"at {pointer[:128]}: {problem}" if pointer else problem)


def _too_deep() -> NoReturn:
    _fault("", f"it nests deeper than {MAX_SCHEMA_DEPTH} levels; move inner schemas below $defs")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_pattern(value: Any) -> bool:
    return isinstance(value, str) and pattern_cost(value) <= MAX_PATTERN_COST


def _is_type(value: Any) -> bool:
    names: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in _TYPES for name in names)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[Any]", value))


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "$ref": ("a string", _is_text),
    "enum": ("a list of one value or more", lambda value: isinstance(value, list) and bool(cast("list[Any]", value))),
    "format": ("a string", _is_text),
    "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "pattern": (f"a string of at most {MAX_PATTERN_COST} characters once repetitions are written out", _is_pattern),
    "required": ("a list of strings", _are_texts),
    "type": (f"one of {', '.join(sorted(_TYPES))}, or a list of them", _is_type),
    **dict.fromkeys(_NUMBER_KEYS, ("a number", _is_number)),
    **dict.fromkeys(_COUNT_KEYS, (f"a whole number from 0 to {MAX_COUNT}", _is_count)),
}

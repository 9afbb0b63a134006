"""Parameters of an OpenAI request body that Tidemill has under another name."""

from collections.abc import Mapping
from typing import cast

from tidemill.client.parameters import FieldError, show
from tidemill.errors import Reason

_ANY_OBJECT = {"type": "object"}


def own_parameters(body: Mapping[str, object], *, chat: bool) -> dict[str, object]:
    """The parameters of a chat or completion body under our names; unknown ones stay as they are. Raises FieldError."""
    values = dict(body)
    _drop_no_op(values, "stream", False)
    if values.get("n") == 1 and not isinstance(values["n"], bool | float):
        # Left out as ever: a row's digest covers what is set.
        del values["n"]
    if chat:
        _rename_max_tokens(values)
        _rename_logprobs(values)
    _rename_response_format(values)
    return values


def check_encoding(values: dict[str, object]) -> None:
    """Take `encoding_format` out of an embedding body; vectors are written as numbers."""
    _drop_no_op(values, "encoding_format", "float")


def _drop_no_op(values: dict[str, object], key: str, only: object) -> None:
    value = values.pop(key, None)
    if value is not None and (type(value) is not type(only) or value != only):
        expected = show(only).removeprefix("the boolean ").removeprefix("the string ")
        raise FieldError(f"body.{key}", f"must be {expected}, not {show(value)}", Reason.UNSUPPORTED_PARAMETER)


def _rename_max_tokens(values: dict[str, object]) -> None:
    newer = values.pop("max_completion_tokens", None)
    if newer is None:
        return
    if values.get("max_tokens") not in (None, newer):
        raise FieldError("body.max_completion_tokens", 'contradicts "max_tokens"; give one of them')
    values["max_tokens"] = newer


def _rename_logprobs(values: dict[str, object]) -> None:
    """A chat says whether in `logprobs` and how many in `top_logprobs`; we say both by the number."""
    wanted, top = values.pop("logprobs", None), values.pop("top_logprobs", None)
    if wanted is not None and not isinstance(wanted, bool):
        raise FieldError("body.logprobs", f"must be true or false in a chat, not {show(wanted)}; see top_logprobs")
    if top is not None and not wanted:
        raise FieldError("body.top_logprobs", 'needs "logprobs": true')
    if wanted:
        values["logprobs"] = 0 if top is None else top


def _rename_response_format(values: dict[str, object]) -> None:
    wanted = values.pop("response_format", None)
    if wanted is None:
        return
    schema = _schema_of(wanted)
    if schema is not None:
        if values.get("json_schema") is not None:
            raise FieldError("body.json_schema", 'is given together with "response_format"; give one of them')
        values["json_schema"] = schema


def _schema_of(wanted: object) -> object:
    """The schema that a `response_format` asks for; None for plain text."""
    key = "body.response_format"
    if not isinstance(wanted, Mapping):
        raise FieldError(key, f"must be an object, not {show(wanted)}")
    fields = cast("Mapping[str, object]", wanted)
    match fields.get("type"):
        case "text":
            return _only(fields, key, "type")
        case "json_object":
            _only(fields, key, "type")
            return _ANY_OBJECT
        case "json_schema":
            _only(fields, key, "type", "json_schema")
            return _named_schema(fields.get("json_schema"), f"{key}.json_schema")
        case other:
            problem = f'must be "text", "json_object" or "json_schema", not {show(other)}'
            raise FieldError(f"{key}.type", problem, Reason.UNSUPPORTED_PARAMETER)


def _named_schema(named: object, key: str) -> object:
    if not isinstance(named, Mapping):
        raise FieldError(key, f'must be an object {{"name": ..., "schema": ...}}, not {show(named)}')
    fields = cast("Mapping[str, object]", named)
    _only(fields, key, "name", "description", "schema", "strict")
    if not isinstance(fields.get("schema"), Mapping):
        raise FieldError(f"{key}.schema", f"must be a JSON Schema, not {show(fields.get('schema'))}")
    if not isinstance(fields.get("strict"), bool | None):
        raise FieldError(f"{key}.strict", f"must be true or false, not {show(fields['strict'])}; it is always kept to")
    return fields["schema"]


def _only(fields: Mapping[str, object], key: str, *names: str) -> None:
    for name in fields:
        if name not in names:
            raise FieldError(f"{key}.{name}", "is not supported; remove it", Reason.UNSUPPORTED_PARAMETER)

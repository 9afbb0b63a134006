"""Vectors, classes, alternatives and log probabilities as Arrow columns, built and read without an object a number.

Item fields are called `element`, as Parquet calls them, so that a table in memory and one read back have one schema.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, cast

import pyarrow as pa

from tidemill.outputs import Alternative, ClassScore, TokenLogprob, TopLogprob

_pa = cast("Any", pa)


def _list_of(item: Any) -> Any:
    return _pa.list_(_pa.field("element", item))


_TOP = _pa.struct([_pa.field("token", _pa.string()), _pa.field("logprob", _pa.float32())])
_TOKEN = _pa.struct([*_TOP, _pa.field("top", _list_of(_TOP))])
_LOGPROBS = _list_of(_TOKEN)
_CLASS = _pa.struct([_pa.field("label", _pa.string()), _pa.field("probability", _pa.float64())])
_ALTERNATIVE = _pa.struct(
    [
        _pa.field("text", _pa.string()),
        _pa.field("finish_reason", _pa.string()),
        _pa.field("output_tokens", _pa.int64()),
        _pa.field("logprobs", _LOGPROBS),
    ]
)

OUTPUT_FIELDS: tuple[Any, ...] = (
    _pa.field("vector", _list_of(_pa.float32())),
    _pa.field("classes", _list_of(_CLASS)),
    _pa.field("score", _pa.float64()),
    _pa.field("alternatives", _list_of(_ALTERNATIVE)),
    _pa.field("logprobs", _LOGPROBS),
)
"""The nullable columns of an output beside its text, named as in `tidemill.outputs.Output`."""


def build_column(name: str, values: Sequence[Any]) -> Any:
    """Values of `Output.<name>`, None for none, as an Arrow array of the column's type."""
    kind = next(item.type for item in OUTPUT_FIELDS if item.name == name)
    if values.count(None) == len(values):
        return _pa.nulls(len(values), kind)
    return _BUILDERS[name](values)


def read_column(name: str, column: Any) -> Iterator[Any]:
    """The values that `build_column` was given, made one at a time."""
    if column.null_count == len(column):
        return iter([None] * len(column))
    return (_READERS[name](value) if value.is_valid else None for chunk in column.chunks for value in chunk)


def _vectors(values: Sequence[bytes | None]) -> Any:
    data = b"".join(value for value in values if value is not None)
    numbers = _pa.Array.from_buffers(_pa.float32(), len(data) // 4, [None, _pa.py_buffer(data)])
    return _lists([None if value is None else len(value) // 4 for value in values], numbers)


def _classes(values: Sequence[Sequence[ClassScore] | None]) -> Any:
    items = _flat(values)
    columns = ([item.label for item in items], [item.probability for item in items])
    return _lists(_sizes(values), _struct(_CLASS, columns))


def _scores(values: Sequence[float | None]) -> Any:
    return _pa.array(values, _pa.float64())


def _alternatives(values: Sequence[Sequence[Alternative] | None]) -> Any:
    items = _flat(values)
    names = ("text", "finish_reason", "output_tokens")
    columns = [[getattr(item, name) for item in items] for name in names]
    return _lists(_sizes(values), _struct(_ALTERNATIVE, [*columns, _logprobs([item.logprobs for item in items])]))


def _logprobs(values: Sequence[Sequence[TokenLogprob] | None]) -> Any:
    items = _flat(values)
    tops = [item.top for item in items]
    flat = _flat(tops)
    top = _struct(_TOP, ([item.token for item in flat], [item.logprob for item in flat]))
    columns = ([item.token for item in items], [item.logprob for item in items], _lists(_sizes(tops), top))
    return _lists(_sizes(values), _struct(_TOKEN, columns))


def _struct(kind: Any, columns: Iterable[Any]) -> Any:
    arrays = [
        column if isinstance(column, _pa.Array) else _pa.array(column, item.type)
        for item, column in zip(kind, columns, strict=True)
    ]
    return _pa.StructArray.from_arrays(arrays, fields=list(kind))


def _lists(sizes: Sequence[int | None], items: Any) -> Any:
    ends = [0, *accumulate(size or 0 for size in sizes)]
    # A null offset makes the list that begins there null.
    starts = [None if size is None else start for size, start in zip(sizes, ends, strict=False)]
    offsets = _pa.array([*starts, ends[-1]], _pa.int32())
    return _pa.ListArray.from_arrays(offsets, items, type=_list_of(items.type))


def _sizes(values: Iterable[Sequence[Any] | None]) -> list[int | None]:
    return [None if value is None else len(value) for value in values]


def _flat(values: Iterable[Sequence[Any] | None]) -> list[Any]:
    return list(chain.from_iterable(value for value in values if value is not None))


def _read_vector(value: Any) -> bytes:
    return value.values.to_numpy(zero_copy_only=False).astype("<f4").tobytes()


def _read_classes(value: Any) -> tuple[ClassScore, ...]:
    return tuple(ClassScore(**item) for item in value.as_py())


def _read_score(value: Any) -> float:
    return value.as_py()


def _read_alternatives(value: Any) -> tuple[Alternative, ...]:
    return tuple(
        Alternative(item["text"], item["finish_reason"], item["output_tokens"], _tokens(item["logprobs"]))
        for item in value.as_py()
    )


def _read_logprobs(value: Any) -> tuple[TokenLogprob, ...] | None:
    return _tokens(value.as_py())


def _tokens(items: list[dict[str, Any]] | None) -> tuple[TokenLogprob, ...] | None:
    if items is None:
        return None
    return tuple(
        TokenLogprob(item["token"], item["logprob"], tuple(TopLogprob(**top) for top in item["top"])) for item in items
    )


_BUILDERS: dict[str, Callable[[Any], Any]] = {
    "vector": _vectors,
    "classes": _classes,
    "score": _scores,
    "alternatives": _alternatives,
    "logprobs": _logprobs,
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "vector": _read_vector,
    "classes": _read_classes,
    "score": _read_score,
    "alternatives": _read_alternatives,
    "logprobs": _read_logprobs,
}

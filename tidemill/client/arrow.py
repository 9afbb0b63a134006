"""Results as Arrow record batches. pyarrow is imported by the first call."""

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, cast

from tidemill.client.optional import require
from tidemill.v1 import row_pb2

BATCH_ROWS = 1024
BATCH_BYTES = 8 << 20
_USE = "results as Arrow"
_RESULT_FIELDS = row_pb2.RowResult.DESCRIPTOR.fields_by_name


@cache
def result_schema() -> Any:
    """The columns: the fields of `RowResult`, null where a row has none. `status` is a name such as `SUCCEEDED`."""
    pa = require("pyarrow", _USE)
    top = pa.struct([("token", pa.string()), ("logprob", pa.float32())])
    logprobs = pa.list_(pa.struct([*top, ("top", pa.list_(top))]))
    alternative = [("text", pa.large_string()), ("finish_reason", pa.string()), ("output_tokens", pa.int64())]
    return pa.schema(
        [
            pa.field("row_index", pa.int64(), nullable=False),
            pa.field("custom_id", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            ("text", pa.large_string()),
            ("finish_reason", pa.string()),
            ("error_code", pa.string()),
            ("error_message", pa.string()),
            ("prompt_tokens", pa.int64()),
            ("output_tokens", pa.int64()),
            ("cached_tokens", pa.int64()),
            ("embedding", pa.list_(pa.float32())),
            ("classes", pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float64())]))),
            ("score", pa.float64()),
            ("alternatives", pa.list_(pa.struct([*alternative, ("logprobs", logprobs)]))),
            ("logprobs", logprobs),
            ("attempt", pa.int32()),
            ("queue_seconds", pa.float64()),
            ("prefill_seconds", pa.float64()),
            ("decode_seconds", pa.float64()),
            ("model_digest", pa.string()),
            ("engine_build", pa.string()),
            ("engine_record", pa.string()),
        ]
    )


def chosen_schema(fields: Collection[str] | None) -> Any:
    """The columns of `result_schema` that are in `fields`, and those that always are; all for None."""
    pa, schema = require("pyarrow", _USE), result_schema()
    if fields is None:
        return schema
    return pa.schema([field for field in schema if field.name in fields or not field.nullable])


class BatchBuilder:
    """Gathers results into record batches of at most 1024 rows and about 8 MiB, with the columns in `fields`."""

    def __init__(self, fields: Collection[str] | None = None) -> None:
        self.schema = chosen_schema(fields)
        self._results: list[row_pb2.RowResult] = []
        self._bytes = 0

    def add(self, result: row_pb2.RowResult) -> Any:
        """Take a result; returns the batch that it completes, or None."""
        self._results.append(result)
        self._bytes += result.ByteSize()
        full = len(self._results) >= BATCH_ROWS or self._bytes >= BATCH_BYTES
        return self.finish() if full else None

    def finish(self) -> Any:
        """The batch of what is left; it may be empty."""
        batch = result_batch(self._results, self.schema)
        self._results, self._bytes = [], 0
        return batch


def result_reader(results: Iterable[row_pb2.RowResult], fields: Collection[str] | None = None) -> Any:
    """A `pyarrow.RecordBatchReader` that pulls `results` as it is read."""
    pa = require("pyarrow", _USE)
    builder = BatchBuilder(fields)

    def batches() -> Iterator[Any]:
        for result in results:
            if batch := builder.add(result):
                yield batch
        yield builder.finish()

    return pa.RecordBatchReader.from_batches(builder.schema, batches())


def result_batch(results: Sequence[row_pb2.RowResult], schema: Any) -> Any:
    """`results` as one record batch of `schema`."""
    pa = require("pyarrow", _USE)
    columns = [
        _vectors(pa, results) if field.name == "embedding" else pa.array(map(_getter(field.name), results), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _vectors(pa: Any, results: Sequence[row_pb2.RowResult]) -> Any:
    # By way of one buffer: a Python object for each number would be most of the time.
    flat, starts = array("f"), list[int | None]()
    for result in results:
        starts.append(len(flat) if result.embedding else None)
        flat.extend(result.embedding)
    values = pa.Array.from_buffers(pa.float32(), len(flat), [None, pa.py_buffer(flat)])
    return pa.ListArray.from_arrays(pa.array([*starts, len(flat)], pa.int32()), values)


def _getter(name: str) -> Callable[[row_pb2.RowResult], Any]:
    """How the value of a column is read from a result; None for what is not there."""
    if special := _SPECIAL.get(name):
        return special
    field = _RESULT_FIELDS[name]
    if field.message_type:
        return lambda result: [_fields(item) for item in getattr(result, name)] or None
    if field.has_presence:
        return lambda result: getattr(result, name) if result.HasField(cast("Any", name)) else None
    empty = None if field.default_value == "" else field.default_value
    return lambda result: getattr(result, name) or empty


_SPECIAL: dict[str, Callable[[row_pb2.RowResult], Any]] = {
    "custom_id": lambda result: result.custom_id,
    "status": lambda result: row_pb2.RowStatus.Name(result.status).removeprefix("ROW_STATUS_"),
    "text": lambda result: result.text if _generated(result) else None,
}


def _generated(result: row_pb2.RowResult) -> bool:
    """Whether it has a text, which may be empty."""
    answered = result.status == row_pb2.ROW_STATUS_SUCCEEDED
    return answered and not (result.embedding or result.classes or result.HasField("score"))


def _fields(message: Any) -> dict[str, Any]:
    """A message as a dictionary, its repeated messages as lists of them."""
    return {
        field.name: [_fields(item) for item in value] if field.message_type else value
        for field in message.DESCRIPTOR.fields
        for value in [getattr(message, field.name)]
    }

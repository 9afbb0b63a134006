"""Which fields of results a reader asked for, and results made of the columns that hold them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import field_mask_pb2

from services.gateway.output_fields import OUTPUT_FIELDS
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.output_columns import read_column
from tidemill.v1 import row_pb2

_NAMES = tuple(field.name for field in row_pb2.RowResult.DESCRIPTOR.fields)
# Without them nobody could tell whose values the others are, or whether a text is empty or missing.
_ALWAYS = ("row_index", "custom_id", "status")


@dataclass(frozen=True)
class ResultFields:
    """Fields of `RowResult`, by name."""

    names: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a result segment that hold them."""
        return tuple(OUTPUT_FIELDS[name][0] if name in OUTPUT_FIELDS else name for name in self.names)

    def results(self, table: Any) -> Iterator[row_pb2.RowResult]:
        """The rows of a table that was read with `columns`. Files of earlier builds may lack some, which stay unset."""
        plain = [name for name in self.names if name not in OUTPUT_FIELDS and name in table.column_names]
        outputs = list(self._outputs(table))
        for number, row in enumerate(table.select(plain).to_pylist()):
            result = row_pb2.RowResult(**row)
            for name, values in outputs:
                if (value := values[number]) is not None:
                    _set(result, name, value)
            yield result

    def _outputs(self, table: Any) -> Iterator[tuple[str, Sequence[Any]]]:
        for name in self.names:
            column, convert = OUTPUT_FIELDS.get(name, ("", None))
            # Text alone, the common case, pays nothing for what it does not have.
            if convert and column in table.column_names and table.column(column).null_count < table.num_rows:
                values = read_column(column, table.column(column))
                yield name, [None if value is None else convert(value) for value in values]


def _set(result: row_pb2.RowResult, name: str, value: Any) -> None:
    if name == "score":
        result.score = value
    else:
        getattr(result, name).extend(value)


ALL_FIELDS = ResultFields(_NAMES)


def fields_of(mask: field_mask_pb2.FieldMask) -> ResultFields:
    """The fields that a mask names, and those that always come; INVALID_ARGUMENT names an unknown one."""
    paths = set(mask.paths)
    if not paths or paths == {"*"}:
        return ALL_FIELDS
    if unknown := sorted(path for path in paths if path not in _NAMES):
        description = (
            f"path {unknown[0][:64]!r} is not a field of a result; use * alone, or some of {', '.join(_NAMES)}"
        )
        raise TidemillError(Reason.INVALID_ARGUMENT, description, violations=[FieldViolation("read_mask", description)])
    return ResultFields(tuple(name for name in _NAMES if name in paths or name in _ALWAYS))

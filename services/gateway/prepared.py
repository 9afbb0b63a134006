"""Rows that passed their checks, by column: no object is made for a row on its way to a segment."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tidemill.segments import input_columns_table


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be stored, in order; each list has a value a row.

    Attributes:
        start: index in the job of the first row.
        tasks: kinds, see `tidemill.encoding.Task`.
        requests: encoded requests.
        digests: digests of custom id and request.
        ids: hashes of the custom ids.
        text_bytes: UTF-8 bytes of a row's texts, from which the scheduler estimates its prompt.
        max_tokens: most tokens that a row may generate in all its answers, 0 without a limit.
        shared_only: dedicated mode has no answer to it, whatever the job's own sampling.
    """

    start: int = 0
    custom_ids: list[str] = field(default_factory=list[str])
    tasks: list[str] = field(default_factory=list[str])
    requests: list[bytes] = field(default_factory=list[bytes])
    digests: list[bytes] = field(default_factory=list[bytes])
    ids: list[bytes] = field(default_factory=list[bytes])
    text_bytes: list[int] = field(default_factory=list[int])
    max_tokens: list[int] = field(default_factory=list[int])
    shared_only: list[bool] = field(default_factory=list[bool])

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def size(self) -> int:
        """Bytes of the requests."""
        return sum(map(len, self.requests))

    def table(self) -> Any:
        """As an Arrow table of `tidemill.segments.INPUT_SCHEMA`."""
        return input_columns_table(self.start, self.custom_ids, self.tasks, self.requests, self.digests)

    def extend(self, other: "Prepared") -> None:
        """Add the rows that follow."""
        for own, more in zip(self._columns(), other._columns(), strict=True):
            own.extend(more)

    def split(self, count: int) -> "tuple[Prepared, Prepared]":
        """The first `count` rows, and the rest."""
        columns = list(self._columns())
        first = Prepared(self.start, *(column[:count] for column in columns))
        return first, Prepared(self.start + count, *(column[count:] for column in columns))

    def _columns(self) -> Iterator[list[Any]]:
        yield self.custom_ids
        yield self.tasks
        yield self.requests
        yield self.digests
        yield self.ids
        yield self.text_bytes
        yield self.max_tokens
        yield self.shared_only

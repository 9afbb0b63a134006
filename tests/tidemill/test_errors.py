"""The error tree: each reason has one class, and a copy is the same error."""

import pickle
import re

import pytest

from tidemill import errors
from tidemill.errors import FieldViolation, Reason, RowsFailedError, RowsRefusedError, TidemillError
from tidemill.v1 import row_pb2

# What processes say to each other, or what nobody can act on but by its message.
_OF_NO_CLASS = {
    Reason.STALE_FENCE,
    Reason.WORKER_UNKNOWN,
    Reason.PART_CONFLICT,
    Reason.PART_INVALID,
    Reason.TALLY_MISMATCH,
    Reason.LEDGER_LOCKED,
    Reason.LEDGER_UNSAFE,
    Reason.CANCELLED,
    Reason.INTERNAL,
}


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_has_its_class(reason: Reason) -> None:
    error = TidemillError(reason, "why", metadata={"a": 1}, retry_after=2.5)
    assert isinstance(error, TidemillError)
    assert (type(error) is TidemillError) == (reason in _OF_NO_CLASS)
    assert (error.reason, error.message, str(error)) == (reason, "why", f"{reason}: why")
    assert (error.metadata, error.retry_after) == ({"a": "1"}, 2.5)


def test_the_tree_in_words_names_every_class() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, TidemillError)}
    assert set(re.findall(r"^ *(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)) == kinds


def test_a_subclass_that_is_named_is_kept() -> None:
    row = row_pb2.RowError(index=3, code="INPUT_MISSING")
    error = RowsRefusedError(Reason.UNSUPPORTED_PARAMETER, "why", row_errors=[row])
    assert isinstance(error, errors.InvalidRequestError)
    assert error.row_errors == [row]


def test_a_copy_is_the_same() -> None:
    results = [row_pb2.RowResult(row_index=1), row_pb2.RowResult(row_index=2, error_code="X")]
    error = RowsFailedError(Reason.ROWS_FAILED, "why", results=results, violations=[FieldViolation("a", "b")])
    error.add_note("note")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(copy), str(copy), copy.__notes__) == (RowsFailedError, str(error), ["note"])
    assert (copy.failed, copy.results, copy.violations) == (results[1:], results, error.violations)


def test_the_earliest_deadline_is_a_time() -> None:
    error = TidemillError(Reason.DEADLINE_INFEASIBLE, "", metadata={"earliest_feasible_time": "2026-11-21T10:00:00Z"})
    assert isinstance(error, errors.DeadlineInfeasibleError)
    assert str(error.earliest_feasible_time) == "2026-11-21 10:00:00+00:00"
    unknown = TidemillError(Reason.DEADLINE_INFEASIBLE, "")
    assert isinstance(unknown, errors.DeadlineInfeasibleError)
    assert unknown.earliest_feasible_time is None

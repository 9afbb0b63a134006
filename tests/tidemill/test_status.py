"""Errors across the wire and back."""

import base64
import pickle
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from tidemill.errors import DOMAIN, FieldViolation, Reason, TidemillError
from tidemill.status import STATUS_OF, from_rpc_error, rpc_status


class FakeCall(grpc.RpcError):
    """A failed call as the client sees it."""

    def __init__(self, code: grpc.StatusCode, details: str, status: status_pb2.Status | None = None) -> None:
        self._code, self._details, self._status = code, details, status

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        if self._status is None:
            return ()
        return (("grpc-status-details-bin", self._status.SerializeToString()),)


def over_the_wire(error: TidemillError) -> TidemillError:
    return from_rpc_error(FakeCall(STATUS_OF[error.reason], error.message, rpc_status(error)))


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_status_and_survives_the_wire(reason: Reason) -> None:
    error = over_the_wire(TidemillError(reason, "words", metadata={"job": "j"}, retry_after=1.5))
    assert (error.reason, error.message, error.metadata, error.retry_after) == (reason, "words", {"job": "j"}, 1.5)


def test_violations_survive_the_wire() -> None:
    violations = [FieldViolation("rows[6].sampling.temperature", "must be 0 to 2")]
    error = over_the_wire(TidemillError(Reason.INVALID_ROWS, "words", violations=violations))
    assert list(error.violations) == violations


def test_each_status_carries_one_error_info_of_our_domain() -> None:
    status = rpc_status(TidemillError(Reason.JOB_TERMINAL, "words"))
    infos = [detail for detail in status.details if detail.TypeName() == "google.rpc.ErrorInfo"]
    assert len(infos) == 1
    assert DOMAIN.encode() in infos[0].value


def detail(status: status_pb2.Status, kind: Any) -> Any:
    """The one detail of this kind."""
    (packed,) = [item for item in status.details if item.Is(kind.DESCRIPTOR)]
    message = kind()
    assert packed.Unpack(message)
    return message


def test_a_quota_that_is_exceeded_is_told_in_the_standard_form() -> None:
    metadata = {"subject": "tenants/dev", "quota": "rows", "limit": 100, "held": 90, "wanted": 120}
    error = TidemillError(Reason.QUOTA_EXCEEDED, "words", metadata=metadata, retry_after=30.0)
    status = rpc_status(error)
    (violation,) = detail(status, error_details_pb2.QuotaFailure).violations
    assert (violation.subject, violation.quota_id, violation.quota_value) == ("tenants/dev", "rows", 100)
    assert violation.description == "words"
    assert detail(status, error_details_pb2.RetryInfo).retry_delay.seconds == 30
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    back = over_the_wire(error)
    assert (back.reason, back.metadata, back.retry_after) == (error.reason, error.metadata, 30.0)


def test_an_infeasible_deadline_tells_the_earliest_one() -> None:
    metadata = {"job": "tenants/dev/jobs/x", "earliest_feasible_time": "2030-01-01T00:00:00Z"}
    error = TidemillError(Reason.DEADLINE_INFEASIBLE, "words", metadata=metadata)
    (violation,) = detail(rpc_status(error), error_details_pb2.PreconditionFailure).violations
    assert (violation.type, violation.subject) == ("DEADLINE_INFEASIBLE", "tenants/dev/jobs/x")
    assert over_the_wire(error).metadata == metadata


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.UNAVAILABLE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.OVERLOADED),
        (grpc.StatusCode.DATA_LOSS, Reason.INTERNAL),
    ],
)
def test_a_bare_status_gets_the_nearest_reason(code: grpc.StatusCode, reason: Reason) -> None:
    error = from_rpc_error(FakeCall(code, "words"))
    assert (error.reason, error.message) == (reason, "words")


def test_a_reason_of_a_later_version_falls_back_to_its_status() -> None:
    status = rpc_status(TidemillError(Reason.OVERLOADED, "words"))
    for detail in status.details:
        detail.value = detail.value.replace(b"OVERLOADED", b"OVERLOADEX")
    error = from_rpc_error(FakeCall(grpc.StatusCode.RESOURCE_EXHAUSTED, "words", status))
    assert error.reason is Reason.OVERLOADED


def test_an_error_survives_a_process_boundary() -> None:
    violations = [FieldViolation("rows[6]", "words")]
    error = TidemillError(Reason.INVALID_ROWS, "words", metadata={"a": 1}, retry_after=2.0, violations=violations)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (copy.reason, copy.metadata, copy.violations) == (error.reason, error.metadata, error.violations)
    assert (copy.message, copy.retry_after, str(copy)) == (error.message, error.retry_after, str(error))


@given(
    st.text(max_size=3000),
    st.dictionaries(st.text("abc_", min_size=1), st.text(max_size=2000), max_size=8),
    st.lists(st.tuples(st.text(max_size=2000), st.text(max_size=2000)), max_size=120),
    st.sampled_from([Reason.INVALID_ROWS, Reason.QUOTA_EXCEEDED, Reason.JOB_TERMINAL]),
)
def test_any_error_fits_the_trailers_of_a_call(
    message: str, metadata: dict[str, str], violations: list[tuple[str, str]], reason: Reason
) -> None:
    found = [FieldViolation(field, words) for field, words in violations]
    status = rpc_status(TidemillError(reason, message, metadata=metadata, violations=found, retry_after=1.0))
    trailers = len(quote(status.message)) + len(base64.b64encode(status.SerializeToString()))
    assert trailers < 8000
    if reason is Reason.INVALID_ROWS and len(message) < 100:
        assert status.message == message


def test_violations_that_do_not_fit_are_counted() -> None:
    violations = [FieldViolation(f"rows[{n}].prompt", "PROMPT_TOO_LONG: " + "x" * 80) for n in range(100)]
    back = over_the_wire(TidemillError(Reason.INVALID_ROWS, "words", violations=violations))
    assert list(back.violations[:10]) == violations[:10]
    assert back.violations[-1].description == f"and {100 - len(back.violations) + 1} more"


def test_half_a_surrogate_pair_in_a_message_is_replaced() -> None:
    assert rpc_status(TidemillError(Reason.INVALID_ARGUMENT, "a\ud800b")).message == "a?b"

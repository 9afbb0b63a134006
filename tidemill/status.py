"""The one table between `TidemillError` and gRPC statuses, in both directions."""

from typing import Any, NoReturn, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status as rpc_status_codec

from tidemill.errors import DOMAIN, FieldViolation, Reason, TidemillError
from tidemill.status_size import fitting

Code = grpc.StatusCode

STATUS_OF: dict[Reason, grpc.StatusCode] = {
    Reason.API_KEY_MISSING: Code.UNAUTHENTICATED,
    Reason.API_KEY_INVALID: Code.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: Code.PERMISSION_DENIED,
    Reason.INVALID_NAME: Code.INVALID_ARGUMENT,
    Reason.JOB_NOT_FOUND: Code.NOT_FOUND,
    Reason.MODEL_NOT_FOUND: Code.NOT_FOUND,
    Reason.KEY_NOT_FOUND: Code.NOT_FOUND,
    Reason.REQUEST_ID_REUSED: Code.ALREADY_EXISTS,
    Reason.INVALID_ARGUMENT: Code.INVALID_ARGUMENT,
    Reason.INVALID_ROWS: Code.INVALID_ARGUMENT,
    Reason.UNSUPPORTED_PARAMETER: Code.INVALID_ARGUMENT,
    Reason.INVALID_PAGE_TOKEN: Code.INVALID_ARGUMENT,
    Reason.INVALID_FILE: Code.INVALID_ARGUMENT,
    Reason.FILE_NOT_FOUND: Code.NOT_FOUND,
    Reason.FILE_EXISTS: Code.FAILED_PRECONDITION,
    Reason.URI_NOT_ALLOWED: Code.PERMISSION_DENIED,
    Reason.FRAME_TOO_LARGE: Code.INVALID_ARGUMENT,
    Reason.CHECKSUM_MISMATCH: Code.INVALID_ARGUMENT,
    Reason.OFFSET_GAP: Code.OUT_OF_RANGE,
    Reason.ROW_CONTENT_MISMATCH: Code.FAILED_PRECONDITION,
    Reason.WRITER_SUPERSEDED: Code.ABORTED,
    Reason.JOB_NOT_RECEIVING: Code.FAILED_PRECONDITION,
    Reason.ROW_COUNT_MISMATCH: Code.FAILED_PRECONDITION,
    Reason.JOB_EMPTY: Code.FAILED_PRECONDITION,
    Reason.JOB_ALREADY_SEALED: Code.FAILED_PRECONDITION,
    Reason.JOB_TERMINAL: Code.FAILED_PRECONDITION,
    Reason.JOB_NOT_TERMINAL: Code.FAILED_PRECONDITION,
    Reason.JOB_NOT_PAUSABLE: Code.FAILED_PRECONDITION,
    Reason.NO_FAILED_ROWS: Code.FAILED_PRECONDITION,
    Reason.DEADLINE_INFEASIBLE: Code.FAILED_PRECONDITION,
    Reason.DEADLINE_OUT_OF_RANGE: Code.INVALID_ARGUMENT,
    Reason.QUOTA_EXCEEDED: Code.RESOURCE_EXHAUSTED,
    Reason.RATE_EXCEEDED: Code.RESOURCE_EXHAUSTED,
    Reason.MODEL_DRAINED: Code.FAILED_PRECONDITION,
    Reason.OFFSET_OUT_OF_RANGE: Code.OUT_OF_RANGE,
    Reason.ETAG_MISMATCH: Code.ABORTED,
    Reason.ROWS_FAILED: Code.FAILED_PRECONDITION,
    Reason.STALE_FENCE: Code.ABORTED,
    Reason.CHUNK_NOT_LEASED: Code.FAILED_PRECONDITION,
    Reason.WORKER_UNKNOWN: Code.FAILED_PRECONDITION,
    Reason.PART_CONFLICT: Code.FAILED_PRECONDITION,
    Reason.PART_INVALID: Code.INVALID_ARGUMENT,
    Reason.TALLY_MISMATCH: Code.FAILED_PRECONDITION,
    Reason.UNAVAILABLE: Code.UNAVAILABLE,
    Reason.OVERLOADED: Code.RESOURCE_EXHAUSTED,
    Reason.DEADLINE_EXCEEDED: Code.DEADLINE_EXCEEDED,
    Reason.CANCELLED: Code.CANCELLED,
    Reason.LEDGER_LOCKED: Code.FAILED_PRECONDITION,
    Reason.LEDGER_CORRUPT: Code.DATA_LOSS,
    Reason.LEDGER_FENCED: Code.UNAVAILABLE,
    Reason.LEDGER_WRITE_FAILED: Code.UNAVAILABLE,
    Reason.LEDGER_FULL: Code.RESOURCE_EXHAUSTED,
    Reason.LEDGER_UNSAFE: Code.FAILED_PRECONDITION,
    Reason.NOT_LEADER: Code.UNAVAILABLE,
    Reason.STORE_FAILED: Code.UNAVAILABLE,
    Reason.DATA_CORRUPT: Code.DATA_LOSS,
    Reason.INTERNAL: Code.INTERNAL,
}

# What a status without our ErrorInfo means: it comes from gRPC itself or from a proxy.
_REASON_OF_BARE_STATUS: dict[grpc.StatusCode, Reason] = {
    Code.UNAUTHENTICATED: Reason.API_KEY_INVALID,
    Code.PERMISSION_DENIED: Reason.PERMISSION_DENIED,
    Code.INVALID_ARGUMENT: Reason.INVALID_ARGUMENT,
    Code.UNAVAILABLE: Reason.UNAVAILABLE,
    Code.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
    Code.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    Code.CANCELLED: Reason.CANCELLED,
}

_PRECONDITION_CODES = frozenset({Code.FAILED_PRECONDITION})


def rpc_status(error: TidemillError) -> status_pb2.Status:
    """The wire form of `error`, cut to what trailers hold: one ErrorInfo, and the fitting further details.

    The metadata of QUOTA_EXCEEDED and RATE_EXCEEDED name the `subject`, the `quota` and its `limit`; those of
    DEADLINE_INFEASIBLE the `earliest_feasible_time` (RFC 3339).
    """
    error = fitting(error)
    code = STATUS_OF[error.reason]
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)]
    if error.violations:
        details.append(_bad_request(error))
    elif code in _PRECONDITION_CODES:
        details.append(_precondition_failure(error))
    if error.reason in (Reason.QUOTA_EXCEEDED, Reason.RATE_EXCEEDED):
        details.append(_quota_failure(error))
    if error.retry_after is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after)))
    return status_pb2.Status(code=code.value[0], message=error.message, details=[_pack(detail) for detail in details])


def _bad_request(error: TidemillError) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[violation(field=item.field, description=item.description) for item in error.violations]
    )


def _precondition_failure(error: TidemillError) -> error_details_pb2.PreconditionFailure:
    violation = error_details_pb2.PreconditionFailure.Violation
    subject = error.metadata.get("job", "")
    return error_details_pb2.PreconditionFailure(
        violations=[violation(type=error.reason, subject=subject, description=error.message)]
    )


def _quota_failure(error: TidemillError) -> error_details_pb2.QuotaFailure:
    violation = error_details_pb2.QuotaFailure.Violation(
        subject=error.metadata.get("subject", ""),
        quota_id=error.metadata.get("quota", ""),
        quota_value=int(error.metadata.get("limit", 0)),
        description=error.message,
    )
    return error_details_pb2.QuotaFailure(violations=[violation])


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration


def _pack(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: TidemillError) -> NoReturn:
    """End an asynchronous RPC with `error`."""
    status = rpc_status_codec.to_status(rpc_status(error))
    # `abort_with_status` exists in synchronous servers only, so its three parts are passed on by hand.
    await context.abort(status.code, status.details or "", cast("Any", status.trailing_metadata))
    raise AssertionError("abort returned")


def from_rpc_error(exc: grpc.RpcError) -> TidemillError:
    """The typed error behind a failed call; never raises."""
    call = cast("Any", exc)
    code: grpc.StatusCode = call.code()
    for packed in _details(call):
        info = error_details_pb2.ErrorInfo()
        if packed.TypeName() == "google.rpc.ErrorInfo" and packed.Unpack(info) and info.domain == DOMAIN:
            return _typed(info, call)
    reason = _REASON_OF_BARE_STATUS.get(code, Reason.INTERNAL)
    return TidemillError(reason, call.details() or code.name, metadata={"status": code.name})


def _typed(info: error_details_pb2.ErrorInfo, call: Any) -> TidemillError:
    known = info.reason in Reason.__members__
    reason = Reason(info.reason) if known else _REASON_OF_BARE_STATUS.get(call.code(), Reason.INTERNAL)
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    for packed in _details(call):
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if packed.TypeName() == "google.rpc.BadRequest" and packed.Unpack(bad_request):
            violations = [FieldViolation(item.field, item.description) for item in bad_request.field_violations]
        elif packed.TypeName() == "google.rpc.RetryInfo" and packed.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    return TidemillError(
        reason, call.details() or "", metadata=dict(info.metadata), retry_after=retry_after, violations=violations
    )


def _details(call: Any) -> list[any_pb2.Any]:
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status()
            status.ParseFromString(value)
            return list(status.details)
    return []

"""The one error tree of Tidemill.

TidemillError
    AuthenticationError          no API key, or not a valid one
    PermissionDeniedError        the key may not do this
    NotFoundError                no such job or model for this key
    InvalidRequestError          what was sent has a wrong shape or value; `violations` name the fields
        RowsRefusedError         rows were refused; `row_errors` name them
    ConflictError                another writer, or other content under the same name
    JobStateError                the job or model is not in a state for that
    DeadlineInfeasibleError      the deadline cannot be promised; `earliest_feasible_time` can
    QuotaExceededError           a limit of the tenant; `retry_after` says when to come back
    ServiceUnavailableError      the service is away or overloaded; the client has tried again for its patience
    DeadlineExceededError        no answer in the time that the caller gave
    RowsFailedError              a job ended with rows that have no answer; `failed` are their results
    DataCorruptError             stored data is not what was stored

Every process and the client raise and receive these classes, so a refusal decided in the scheduler reaches the user
with the words it was given there. `TidemillError(reason, ...)` makes an instance of the class of its reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tidemill.v1 import row_pb2

DOMAIN = "tidemill.dev"


class Reason(StrEnum):
    """Stable, machine-readable cause of a refusal; `tidemill.status` gives each its gRPC status code."""

    # The caller's identity.
    API_KEY_MISSING = "API_KEY_MISSING"
    API_KEY_INVALID = "API_KEY_INVALID"
    PERMISSION_DENIED = "PERMISSION_DENIED"

    # Names and resources.
    INVALID_NAME = "INVALID_NAME"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"

    # Shape and range of what was sent.
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    INVALID_ROWS = "INVALID_ROWS"
    UNSUPPORTED_PARAMETER = "UNSUPPORTED_PARAMETER"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 - a reason, not a password
    INVALID_FILE = "INVALID_FILE"
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    FILE_EXISTS = "FILE_EXISTS"
    URI_NOT_ALLOWED = "URI_NOT_ALLOWED"
    FRAME_TOO_LARGE = "FRAME_TOO_LARGE"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"

    # Append streams.
    OFFSET_GAP = "OFFSET_GAP"
    ROW_CONTENT_MISMATCH = "ROW_CONTENT_MISMATCH"
    WRITER_SUPERSEDED = "WRITER_SUPERSEDED"
    JOB_NOT_RECEIVING = "JOB_NOT_RECEIVING"

    # Life cycle.
    ROW_COUNT_MISMATCH = "ROW_COUNT_MISMATCH"
    JOB_EMPTY = "JOB_EMPTY"
    JOB_ALREADY_SEALED = "JOB_ALREADY_SEALED"
    JOB_TERMINAL = "JOB_TERMINAL"
    JOB_NOT_TERMINAL = "JOB_NOT_TERMINAL"
    JOB_NOT_PAUSABLE = "JOB_NOT_PAUSABLE"
    NO_FAILED_ROWS = "NO_FAILED_ROWS"
    DEADLINE_INFEASIBLE = "DEADLINE_INFEASIBLE"
    DEADLINE_OUT_OF_RANGE = "DEADLINE_OUT_OF_RANGE"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    RATE_EXCEEDED = "RATE_EXCEEDED"
    MODEL_DRAINED = "MODEL_DRAINED"
    OFFSET_OUT_OF_RANGE = "OFFSET_OUT_OF_RANGE"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    ROWS_FAILED = "ROWS_FAILED"

    # Leases.
    STALE_FENCE = "STALE_FENCE"
    CHUNK_NOT_LEASED = "CHUNK_NOT_LEASED"
    WORKER_UNKNOWN = "WORKER_UNKNOWN"
    PART_CONFLICT = "PART_CONFLICT"
    PART_INVALID = "PART_INVALID"
    TALLY_MISMATCH = "TALLY_MISMATCH"

    # The service itself.
    UNAVAILABLE = "UNAVAILABLE"
    OVERLOADED = "OVERLOADED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    LEDGER_LOCKED = "LEDGER_LOCKED"
    LEDGER_CORRUPT = "LEDGER_CORRUPT"
    LEDGER_FENCED = "LEDGER_FENCED"
    LEDGER_WRITE_FAILED = "LEDGER_WRITE_FAILED"
    LEDGER_FULL = "LEDGER_FULL"
    LEDGER_UNSAFE = "LEDGER_UNSAFE"
    NOT_LEADER = "NOT_LEADER"
    STORE_FAILED = "STORE_FAILED"
    DATA_CORRUPT = "DATA_CORRUPT"
    INTERNAL = "INTERNAL"


class RowCode(StrEnum):
    """Why a row was refused at append, or ended without an answer."""

    CUSTOM_ID_INVALID = "CUSTOM_ID_INVALID"
    CUSTOM_ID_DUPLICATE = "CUSTOM_ID_DUPLICATE"
    INPUT_MISSING = "INPUT_MISSING"
    INPUT_INVALID = "INPUT_INVALID"
    INPUT_AMBIGUOUS = "INPUT_AMBIGUOUS"
    CHAT_NOT_SUPPORTED = "CHAT_NOT_SUPPORTED"
    TASK_NOT_SUPPORTED = "TASK_NOT_SUPPORTED"
    SCHEMA_INVALID = "SCHEMA_INVALID"
    PARAMETER_OUT_OF_RANGE = "PARAMETER_OUT_OF_RANGE"
    UNSUPPORTED_PARAMETER = "UNSUPPORTED_PARAMETER"
    PROMPT_TOO_LONG = "PROMPT_TOO_LONG"
    ENGINE_REFUSED = "ENGINE_REFUSED"
    INPUT_CORRUPT = "INPUT_CORRUPT"
    JOB_CANCELLED = "JOB_CANCELLED"
    JOB_EXPIRED = "JOB_EXPIRED"
    JOB_FAILED = "JOB_FAILED"
    WORKER_CRASHED = "WORKER_CRASHED"


@dataclass(frozen=True)
class FieldViolation:
    """One offending field: its path (`rows[6].sampling.temperature`) and what is wrong with it."""

    field: str
    description: str


class TidemillError(Exception):
    """A typed refusal or failure.

    Attributes:
        reason: stable cause.
        message: what is wrong, the limit and the remedy.
        metadata: the variable parts of the message, by name.
        retry_after: seconds after which the same call may succeed; None where repeating does not help.
        violations: the offending fields of a bad request.
    """

    def __new__(cls, reason: Reason, *_args: Any, **_fields: Any) -> Self:
        """As `OSError` does by errno: the class follows from the reason, unless a subclass is named."""
        return super().__new__(_CLASS_OF.get(reason, cls) if cls is TidemillError else cls)

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, object] | None = None,
        retry_after: float | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(f"{reason.value}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.retry_after = retry_after
        self.violations = tuple(violations)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by its parts: the default would call the constructor with the finished text."""
        return _restore, (type(self), self.reason, self.message), self.__dict__


def _restore(kind: type[TidemillError], reason: Reason, message: str) -> TidemillError:
    return kind(reason, message)


class AuthenticationError(TidemillError):
    """The call had no API key, or one that is unknown, expired or revoked."""


class PermissionDeniedError(TidemillError):
    """The API key is valid and may not do this."""


class NotFoundError(TidemillError):
    """No such job or model; one of another tenant does not exist either."""


class InvalidRequestError(TidemillError):
    """What was sent has a wrong shape or value; sending it again does not help."""


class RowsRefusedError(InvalidRequestError):
    """Rows were refused. `row_errors`: at most 100 of them; nothing of their frame is stored."""

    def __init__(
        self, reason: Reason, message: str, *, row_errors: "Sequence[row_pb2.RowError]" = (), **fields: Any
    ) -> None:
        super().__init__(reason, message, **fields)
        self.row_errors = list(row_errors)


class ConflictError(TidemillError):
    """Another writer took over, or other content is there under the same name."""


class JobStateError(TidemillError):
    """The job, or its model, is not in a state for what was asked."""


class DeadlineInfeasibleError(TidemillError):
    """The deadline cannot be promised."""

    @property
    def earliest_feasible_time(self) -> datetime | None:
        """The earliest deadline that can be; None where the service cannot tell."""
        text = self.metadata.get("earliest_feasible_time", "")
        return datetime.fromisoformat(text) if text else None


class QuotaExceededError(TidemillError):
    """A limit of the tenant is reached; `metadata` name it."""


class ServiceUnavailableError(TidemillError):
    """The service is away, overloaded or cannot store anything now."""


class DeadlineExceededError(TidemillError):
    """No answer within the time that the caller gave."""


class RowsFailedError(TidemillError):
    """A job has ended and rows of it have no answer.

    Attributes:
        results: the results of all rows in input order.
        failed: those without an answer; `error_code` and `error_message` say why.
    """

    def __init__(
        self, reason: Reason, message: str, *, results: "Sequence[row_pb2.RowResult]" = (), **fields: Any
    ) -> None:
        super().__init__(reason, message, **fields)
        self.results = list(results)
        self.failed = [result for result in self.results if result.error_code]


class DataCorruptError(TidemillError):
    """Stored data is missing or is not what was stored."""


_REASONS_OF: dict[type[TidemillError], tuple[Reason, ...]] = {
    AuthenticationError: (Reason.API_KEY_MISSING, Reason.API_KEY_INVALID),
    PermissionDeniedError: (Reason.PERMISSION_DENIED, Reason.URI_NOT_ALLOWED),
    NotFoundError: (Reason.JOB_NOT_FOUND, Reason.MODEL_NOT_FOUND, Reason.KEY_NOT_FOUND, Reason.FILE_NOT_FOUND),
    InvalidRequestError: (
        Reason.INVALID_NAME,
        Reason.INVALID_ARGUMENT,
        Reason.UNSUPPORTED_PARAMETER,
        Reason.INVALID_PAGE_TOKEN,
        Reason.INVALID_FILE,
        Reason.FRAME_TOO_LARGE,
        Reason.CHECKSUM_MISMATCH,
        Reason.DEADLINE_OUT_OF_RANGE,
        Reason.OFFSET_OUT_OF_RANGE,
    ),
    RowsRefusedError: (Reason.INVALID_ROWS,),
    ConflictError: (
        Reason.REQUEST_ID_REUSED,
        Reason.OFFSET_GAP,
        Reason.ROW_CONTENT_MISMATCH,
        Reason.WRITER_SUPERSEDED,
        Reason.ROW_COUNT_MISMATCH,
        Reason.ETAG_MISMATCH,
        Reason.FILE_EXISTS,
    ),
    JobStateError: (
        Reason.JOB_NOT_RECEIVING,
        Reason.JOB_EMPTY,
        Reason.JOB_ALREADY_SEALED,
        Reason.JOB_TERMINAL,
        Reason.JOB_NOT_TERMINAL,
        Reason.JOB_NOT_PAUSABLE,
        Reason.NO_FAILED_ROWS,
        Reason.MODEL_DRAINED,
        Reason.CHUNK_NOT_LEASED,
    ),
    DeadlineInfeasibleError: (Reason.DEADLINE_INFEASIBLE,),
    QuotaExceededError: (Reason.QUOTA_EXCEEDED, Reason.RATE_EXCEEDED),
    ServiceUnavailableError: (
        Reason.UNAVAILABLE,
        Reason.OVERLOADED,
        Reason.NOT_LEADER,
        Reason.STORE_FAILED,
        Reason.LEDGER_FENCED,
        Reason.LEDGER_WRITE_FAILED,
        Reason.LEDGER_FULL,
    ),
    DeadlineExceededError: (Reason.DEADLINE_EXCEEDED,),
    RowsFailedError: (Reason.ROWS_FAILED,),
    DataCorruptError: (Reason.DATA_CORRUPT, Reason.LEDGER_CORRUPT),
}
_CLASS_OF = {reason: kind for kind, reasons in _REASONS_OF.items() for reason in reasons}

"""The one error tree of Tidemill.

TidemillError
    carries a `Reason`; every process and the client raise and receive the same class, so a refusal decided in the
    scheduler reaches the user with the words it was given there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

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
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"

    # Shape and range of what was sent.
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    INVALID_ROWS = "INVALID_ROWS"
    UNSUPPORTED_PARAMETER = "UNSUPPORTED_PARAMETER"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 - a reason, not a password
    INVALID_FILE = "INVALID_FILE"
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
    MODEL_DRAINED = "MODEL_DRAINED"
    OFFSET_OUT_OF_RANGE = "OFFSET_OUT_OF_RANGE"
    ETAG_MISMATCH = "ETAG_MISMATCH"

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
        return _restore, (self.reason, self.message, self.metadata, self.retry_after, self.violations)


def _restore(
    reason: Reason,
    message: str,
    metadata: Mapping[str, object],
    retry_after: float | None,
    violations: Sequence[FieldViolation],
) -> TidemillError:
    return TidemillError(reason, message, metadata=metadata, retry_after=retry_after, violations=violations)

"""From what an engine says of a row to the row's result as it is stored."""

from dataclasses import dataclass

from services.inference.engine_config import Answer, Outcome, Refusal
from services.inference.identity import Record
from tidemill import digests
from tidemill.encoding import Request, decode_request
from tidemill.errors import RowCode
from tidemill.segments import InputRow, ResultRow
from tidemill.v1 import row_pb2

__all__ = ["Origin", "checked_request", "error_row", "result_row"]


@dataclass(frozen=True)
class Origin:
    """Where results come from, the same for all rows of a lease. `model_digest` is hex; `record` is that of the engine,
    None where none answers."""

    attempt: int
    chunk_start: int
    model_digest: str
    engine_build: str
    record: Record | None = None

    @property
    def engine_record(self) -> str:
        """Digest of the record in hex; empty without one."""
        return self.record.name if self.record else ""


def checked_request(row: InputRow) -> Request | Refusal:
    """The row's request, or INPUT_CORRUPT when its bytes are not those that were accepted."""
    if digests.row_digest(row.custom_id, row.request) != row.digest:
        return Refusal(RowCode.INPUT_CORRUPT, "the stored row does not match the digest it was accepted with")
    try:
        return decode_request(row.request)
    except (ValueError, KeyError, TypeError) as exc:
        return Refusal(RowCode.INPUT_CORRUPT, f"the stored row cannot be read: {exc}")


def result_row(row: InputRow, outcome: Outcome, origin: Origin) -> ResultRow:
    """The stored form of an outcome."""
    if isinstance(outcome.result, Refusal):
        return error_row(row, row_pb2.ROW_STATUS_FAILED, outcome.result.code.value, outcome.result.message, origin)
    return _answered(row, outcome.result, origin)


def _answered(row: InputRow, answer: Answer, origin: Origin) -> ResultRow:
    return ResultRow(
        row_index=row.row_index,
        custom_id=row.custom_id,
        status=row_pb2.ROW_STATUS_SUCCEEDED,
        text=answer.text,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        cached_tokens=answer.cached_tokens,
        queue_seconds=answer.queue_seconds,
        prefill_seconds=answer.prefill_seconds,
        decode_seconds=answer.decode_seconds,
        attempt=origin.attempt,
        error_code="",
        error_message="",
        request_digest=row.digest,
        output_digest=answer.output.digest,
        chunk_start=origin.chunk_start,
        model_digest=origin.model_digest,
        engine_build=origin.engine_build,
        engine_record=origin.engine_record,
        vector=answer.vector,
        classes=answer.classes,
        score=answer.score,
        alternatives=answer.alternatives,
        logprobs=answer.logprobs,
    )


def error_row(row: InputRow, status: int, code: str, message: str, origin: Origin) -> ResultRow:
    """A row without an answer; `status` is FAILED, CANCELLED or EXPIRED."""
    return ResultRow(
        row_index=row.row_index,
        custom_id=row.custom_id,
        status=status,
        text=None,
        finish_reason="",
        prompt_tokens=0,
        output_tokens=0,
        cached_tokens=0,
        queue_seconds=None,
        prefill_seconds=None,
        decode_seconds=None,
        attempt=origin.attempt,
        error_code=code,
        error_message=message,
        request_digest=row.digest,
        output_digest=digests.error_digest(code),
        chunk_start=origin.chunk_start,
        model_digest=origin.model_digest,
        engine_build=origin.engine_build,
        engine_record=origin.engine_record,
    )

"""From the rows of a frame to rows that can be stored, or to the reason why not."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from services.gateway.limits import MAX_FRAME_BYTES, MAX_ROW_ERRORS
from services.gateway.prompt_length import PromptLengths
from services.gateway.row_fields import RowRules, check_known, check_row, row_error
from services.gateway.row_texts import is_generation, row_texts
from services.gateway.sampling_together import Effective
from services.gateway.tasks import tasks_of
from services.gateway.unknown_fields import has_unknown_fields
from tidemill.crc import rows_crc32c
from tidemill.digests import id_hash, row_digest
from tidemill.encoding import encode_request, sampling_values
from tidemill.errors import Reason, RowCode
from tidemill.internal.v1 import records_pb2
from tidemill.sampling_limits import shared_only
from tidemill.segments import InputRow
from tidemill.v1 import job_service_pb2, row_pb2


@dataclass(frozen=True)
class Frame:
    """Rows as they came: the offset of the first, the message that carried them, the checksum if one was sent."""

    offset: int
    rows: Sequence[row_pb2.Row]
    message: Message
    crc32c: int | None = None

    @property
    def end(self) -> int:
        """Offset behind the last row."""
        return self.offset + len(self.rows)


@dataclass(frozen=True)
class Refusal:
    """Why nothing of a frame was stored; `row_errors` are at most 100."""

    reason: Reason
    message: str
    row_errors: Sequence[row_pb2.RowError] = ()


@dataclass(frozen=True, slots=True)
class RowDemand:
    """What the scheduler estimates a row's work from: UTF-8 bytes of its texts, and the most tokens that it may
    generate in all its answers, 0 without a limit."""

    text_bytes: int
    max_tokens: int


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be stored, their custom-id hashes and demands in order, and the bytes they take in memory."""

    rows: list[InputRow] = field(default_factory=list[InputRow])
    ids: list[bytes] = field(default_factory=list[bytes])
    demands: list[RowDemand] = field(default_factory=list[RowDemand])
    size: int = 0


def frame_of(request: job_service_pb2.AppendRowsRequest) -> Frame:
    """The frame in a message of `AppendRows`."""
    crc = request.crc32c if request.HasField("crc32c") else None
    return Frame(request.offset, request.rows, request, crc)


def refuse_shape(frame: Frame) -> Refusal | None:
    """What can be said of a frame without looking at its rows."""
    size = frame.message.ByteSize()
    if size > MAX_FRAME_BYTES:
        return Refusal(
            Reason.FRAME_TOO_LARGE,
            f"the frame has {size} bytes; at most {MAX_FRAME_BYTES} are allowed: send fewer rows at a time",
        )
    if frame.offset < 0:
        return Refusal(Reason.INVALID_ARGUMENT, f"offset is {frame.offset}; it must be 0 or more")
    return None


def refuse_unknown() -> Refusal:
    """The refusal of a frame with fields beside its rows that this build does not know."""
    return Refusal(
        Reason.UNSUPPORTED_PARAMETER,
        "the frame has fields that this version of the service does not know; remove them or update the service",
    )


def refuse_rows(errors: Sequence[row_pb2.RowError], total: int) -> Refusal:
    """A refusal for the sake of some rows of a frame of `total`."""
    first = errors[0]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return Refusal(
        Reason.INVALID_ROWS,
        f"{len(errors)} of {total} rows are invalid and nothing of the frame was stored: row {first.index} "
        f"({first.custom_id!r}): {first.message}{more}",
        errors[:MAX_ROW_ERRORS],
    )


def duplicate_id(custom_id: str, index: int, where: str) -> row_pb2.RowError:
    """The refusal of a row whose key was used before."""
    message = f"custom_id is that of another row {where}; each row of a job needs its own"
    return row_error(custom_id, index, RowCode.CUSTOM_ID_DUPLICATE, "custom_id", message)


class FrameChecker:
    """Checks and encodes the rows of one job. Blocking, in time proportional to the frame: call off the loop."""

    def __init__(
        self,
        lengths: PromptLengths,
        model: records_pb2.ModelReport,
        sampling: row_pb2.SamplingParams,
        *,
        dedicated: bool = False,
    ) -> None:
        self._lengths = lengths
        self._model = model
        self._sampling = sampling
        self._rules = RowRules(
            model.model,
            model.max_model_len,
            model.has_chat_template,
            tasks_of(model),
            sampling,
            dedicated and not shared_only(sampling_values(sampling)),
        )

    def prepare(self, frame: Frame) -> Prepared | Refusal:
        """The frame's rows, encoded, or the reason to refuse all of them."""
        if frame.crc32c is not None and (found := rows_crc32c(frame.rows)) != frame.crc32c:
            return Refusal(
                Reason.CHECKSUM_MISMATCH,
                f"crc32c is {frame.crc32c:#010x}, the rows that arrived have {found:#010x}: send the frame again",
            )
        # One look at the whole frame tells whether the rows must be searched for unknown fields one by one.
        if has_unknown_fields(frame.message):
            errors = check_known(frame.rows, frame.offset)
            return refuse_rows(errors, len(frame.rows)) if errors else refuse_unknown()
        if errors := self._row_errors(frame):
            return refuse_rows(errors, len(frame.rows))
        prepared = _encode(frame, self._sampling)
        if errors := _repeated_ids(frame, prepared.ids):
            return refuse_rows(errors, len(frame.rows))
        return prepared

    def _row_errors(self, frame: Frame) -> list[row_pb2.RowError]:
        indexed = enumerate(frame.rows, frame.offset)
        errors = [error for index, row in indexed if (error := check_row(row, index, self._rules))]
        return errors or self._lengths.check(frame.rows, frame.offset, self._model, self._sampling.max_tokens)


def _encode(frame: Frame, defaults: row_pb2.SamplingParams) -> Prepared:
    rows: list[InputRow] = []
    for index, row in enumerate(frame.rows, frame.offset):
        request = encode_request(row)
        kind = str(row.WhichOneof("input"))
        rows.append(InputRow(index, row.custom_id, kind, request, row_digest(row.custom_id, request)))
    ids = [id_hash(row.custom_id) for row in rows]
    demands = [_demand(row, defaults) for row in frame.rows]
    return Prepared(rows, ids, demands, sum(len(row.request) for row in rows))


def _demand(row: row_pb2.Row, defaults: row_pb2.SamplingParams) -> RowDemand:
    text_bytes = sum(len(text.encode()) for text in row_texts(row))
    if not is_generation(row):
        return RowDemand(text_bytes, 0)
    values = Effective(row.sampling if row.HasField("sampling") else None, defaults)
    return RowDemand(text_bytes, values.get("n", 1) * values.get("max_tokens", 0))


def _repeated_ids(frame: Frame, ids: Sequence[bytes]) -> list[row_pb2.RowError]:
    if len(set(ids)) == len(ids):
        return []
    seen: set[bytes] = set()
    errors: list[row_pb2.RowError] = []
    for index, (row, key) in enumerate(zip(frame.rows, ids, strict=True), frame.offset):
        if key in seen:
            errors.append(duplicate_id(row.custom_id, index, "of this frame"))
        seen.add(key)
    return errors

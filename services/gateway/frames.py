"""From the rows of a frame to rows that can be stored, or to the reason why not."""

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from services.gateway.limits import MAX_FRAME_BYTES, MAX_ROW_ERRORS
from services.gateway.plain_prompts import PlainPrompts, plain_prompts
from services.gateway.prepared import Prepared
from services.gateway.prompt_length import PromptLengths, room_for_prompt
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


def frame_of(request: job_service_pb2.AppendRowsRequest | job_service_pb2.AppendRowsOnceRequest) -> Frame:
    """The frame in a message of `AppendRows` or `AppendRowsOnce`."""
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
        # Whether a prompt with the job's sampling alone is acceptable whatever it says.
        example = row_pb2.Row(custom_id="example", prompt="example")
        self._prompts_fit = check_row(example, 0, self._rules) is None

    def prepare(self, frame: Frame) -> Prepared | Refusal:
        """The frame's rows, encoded, or the reason to refuse all of them."""
        plain = plain_prompts(frame.rows)
        if frame.crc32c is not None:
            found = plain.crc32c if plain else rows_crc32c(frame.rows)
            if found != frame.crc32c:
                return _damaged(frame.crc32c, found)
        # One look at the whole frame tells whether the rows must be searched for unknown fields one by one.
        if has_unknown_fields(frame.message):
            errors = check_known(frame.rows, frame.offset)
            return refuse_rows(errors, len(frame.rows)) if errors else refuse_unknown()
        prepared = self._together(plain, frame.offset) if plain else None
        if prepared is None:
            if errors := self._row_errors(frame):
                return refuse_rows(errors, len(frame.rows))
            prepared = _encode(frame, self._sampling)
        if errors := _repeated_ids(prepared):
            return refuse_rows(errors, len(prepared))
        return prepared

    def _together(self, plain: PlainPrompts, start: int) -> Prepared | None:
        if not self._prompts_fit:
            return None
        room = room_for_prompt(self._model, self._sampling.max_tokens)
        return plain.prepare(start, room=room, max_tokens=_most_tokens(Effective(None, self._sampling)))

    def _row_errors(self, frame: Frame) -> list[row_pb2.RowError]:
        indexed = enumerate(frame.rows, frame.offset)
        errors = [error for index, row in indexed if (error := check_row(row, index, self._rules))]
        return errors or self._lengths.check(frame.rows, frame.offset, self._model, self._sampling.max_tokens)


def _damaged(sent: int, found: int) -> Refusal:
    return Refusal(
        Reason.CHECKSUM_MISMATCH,
        f"crc32c is {sent:#010x}, the rows that arrived have {found:#010x}: send the frame again",
    )


def _encode(frame: Frame, defaults: row_pb2.SamplingParams) -> Prepared:
    rows = Prepared(frame.offset)
    for row in frame.rows:
        request = encode_request(row)
        rows.custom_ids.append(row.custom_id)
        rows.tasks.append(str(row.WhichOneof("input")))
        rows.requests.append(request)
        rows.digests.append(row_digest(row.custom_id, request))
        rows.ids.append(id_hash(row.custom_id))
        rows.text_bytes.append(sum(len(text.encode()) for text in row_texts(row)))
        own = row.sampling if row.HasField("sampling") else None
        rows.max_tokens.append(_most_tokens(Effective(own, defaults)) if is_generation(row) else 0)
        rows.shared_only.append(not is_generation(row) or bool(own and shared_only(sampling_values(own))))
    return rows


def _most_tokens(values: Effective) -> int:
    return values.get("n", 1) * values.get("max_tokens", 0)


def _repeated_ids(rows: Prepared) -> list[row_pb2.RowError]:
    if len(set(rows.ids)) == len(rows):
        return []
    seen: set[bytes] = set()
    errors: list[row_pb2.RowError] = []
    for index, (custom_id, key) in enumerate(zip(rows.custom_ids, rows.ids, strict=True), rows.start):
        if key in seen:
            errors.append(duplicate_id(custom_id, index, "of this frame"))
        seen.add(key)
    return errors

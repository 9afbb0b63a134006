"""What makes a row acceptable, apart from the length of its prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from services.gateway.limits import MAX_CUSTOM_ID_BYTES, SHOWN_CUSTOM_ID_BYTES
from services.gateway.row_texts import POOLED_TEXTS
from services.gateway.sampling_fields import check_sampling
from services.gateway.sampling_together import Effective, check_together
from services.gateway.tasks import GENERATION, task_words
from services.gateway.unknown_fields import has_unknown_fields
from tidemill.encoding import MODEL_TASKS, sampling_values
from tidemill.errors import FieldViolation, RowCode
from tidemill.sampling_limits import DIMENSIONS, shared_only
from tidemill.v1 import model_service_pb2, row_pb2

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class RowRules:
    """What a job and its model allow; `max_model_len` 0 means that no worker has said. `sampling` is the job's;
    `dedicated` says that its rows run in dedicated mode."""

    model: str
    max_model_len: int = 0
    has_chat_template: bool = True
    tasks: "frozenset[model_service_pb2.Task.ValueType]" = GENERATION
    sampling: row_pb2.SamplingParams = field(default_factory=row_pb2.SamplingParams)
    dedicated: bool = False


@dataclass(frozen=True)
class _Finding:
    code: RowCode
    field: str
    message: str


def check_row(row: row_pb2.Row, index: int, rules: RowRules) -> row_pb2.RowError | None:
    """The first thing wrong with a row; None when there is nothing."""
    finding = next(_findings(row, rules), None)
    return finding and row_error(row.custom_id, index, finding.code, finding.field, finding.message)


def check_known(rows: Sequence[row_pb2.Row], first_index: int) -> list[row_pb2.RowError]:
    """The rows with fields that this build does not know."""
    message = "the row has a field that this version of the service does not know; remove it or update the service"
    return [
        row_error(row.custom_id, first_index + position, RowCode.UNSUPPORTED_PARAMETER, "", message)
        for position, row in enumerate(rows)
        if has_unknown_fields(row)
    ]


def row_error(custom_id: str, index: int, code: RowCode, field: str, message: str) -> row_pb2.RowError:
    """A refusal of the row at `index` of its job."""
    return row_pb2.RowError(index=index, custom_id=shown_custom_id(custom_id), code=code, field=field, message=message)


def shown_custom_id(custom_id: str) -> str:
    """A key shortened to 64 bytes."""
    return custom_id.encode()[:SHOWN_CUSTOM_ID_BYTES].decode(errors="ignore")


def _findings(row: row_pb2.Row, rules: RowRules) -> Iterator[_Finding]:
    yield from _check_custom_id(row.custom_id)
    kind = row.WhichOneof("input")
    if kind is None:
        problem = f"the row is empty; set one of {', '.join(MODEL_TASKS)}"
        yield _Finding(RowCode.INPUT_MISSING, "input", problem)
        return
    if MODEL_TASKS[kind] not in rules.tasks:
        can = task_words(rules.tasks)
        problem = f"model {rules.model} has no answer to a row of this kind: it can {can}; name a model that can"
        yield _Finding(RowCode.TASK_NOT_SUPPORTED, kind, problem)
    match kind:
        case "prompt":
            if not row.prompt:
                problem = "the prompt is empty; give it at least one character"
                yield _Finding(RowCode.INPUT_MISSING, "prompt", problem)
            yield from _check_sampling(row, rules)
        case "chat":
            yield from _check_chat(row.chat, rules)
            yield from _check_sampling(row, rules)
        case _:
            yield from _check_pooled(row, kind)


def _check_sampling(row: row_pb2.Row, rules: RowRules) -> Iterator[_Finding]:
    own = row.sampling if row.HasField("sampling") else None
    if own is not None:
        for item in check_sampling(own, rules.max_model_len):
            yield _sampling_finding(item)
        if rules.dedicated:
            yield from _check_dedicated(own)
    for item in check_together(Effective(own, rules.sampling), rules.max_model_len):
        yield _sampling_finding(item)


def _check_dedicated(own: row_pb2.SamplingParams) -> Iterator[_Finding]:
    for name in shared_only(sampling_values(own)):
        problem = (
            f"{name} of a single row is not possible in dedicated mode; set it for the whole job, or run it shared"
        )
        yield _Finding(RowCode.UNSUPPORTED_PARAMETER, f"sampling.{name}", problem)


def _sampling_finding(item: FieldViolation) -> _Finding:
    is_schema = item.field == "sampling.json_schema"
    code = RowCode.SCHEMA_INVALID if is_schema else RowCode.PARAMETER_OUT_OF_RANGE
    return _Finding(code, item.field, item.description)


def _check_pooled(row: row_pb2.Row, kind: str) -> Iterator[_Finding]:
    for name in POOLED_TEXTS[kind]:
        if not getattr(getattr(row, kind), name):
            problem = f"the {name} is empty; give it at least one character"
            yield _Finding(RowCode.INPUT_MISSING, f"{kind}.{name}", problem)
    size = row.embedding.dimensions if row.embedding.HasField("dimensions") else 1
    if size not in DIMENSIONS:
        problem = f"dimensions is {size}; it must be from {DIMENSIONS.low} to {DIMENSIONS.high}"
        yield _Finding(RowCode.PARAMETER_OUT_OF_RANGE, "embedding.dimensions", problem)
    for item, _ in row.sampling.ListFields():
        problem = f"{item.name} is for prompts and chats; remove it from this row of kind {kind}"
        yield _Finding(RowCode.UNSUPPORTED_PARAMETER, f"sampling.{item.name}", problem)


def _check_custom_id(custom_id: str) -> Iterator[_Finding]:
    # Up to a quarter of the limit no encoding is needed: a character has at most four bytes.
    size = len(custom_id) if len(custom_id) <= MAX_CUSTOM_ID_BYTES // 4 else len(custom_id.encode())
    if not 1 <= size <= MAX_CUSTOM_ID_BYTES:
        yield _Finding(
            RowCode.CUSTOM_ID_INVALID,
            "custom_id",
            f"custom_id has {size} bytes; it must have 1 to {MAX_CUSTOM_ID_BYTES}",
        )


def _check_chat(chat: row_pb2.ChatInput, rules: RowRules) -> Iterator[_Finding]:
    if not rules.has_chat_template:
        yield _Finding(
            RowCode.CHAT_NOT_SUPPORTED, "chat", f"model {rules.model} has no chat template; send a prompt instead"
        )
    if not chat.messages:
        yield _Finding(RowCode.INPUT_MISSING, "chat.messages", "the chat has no messages; it needs at least one")
        return
    for position, item in enumerate(chat.messages):
        if item.role not in _ROLES:
            yield _Finding(
                RowCode.INPUT_INVALID,
                f"chat.messages[{position}].role",
                f"role {item.role[:32]!r} is unknown; use system, user or assistant",
            )
        if not item.content:
            yield _Finding(
                RowCode.INPUT_INVALID, f"chat.messages[{position}].content", "the message is empty; give it content"
            )
    if chat.messages[-1].role != "user":
        yield _Finding(
            RowCode.INPUT_INVALID,
            f"chat.messages[{len(chat.messages) - 1}].role",
            "the last message must be from the user",
        )

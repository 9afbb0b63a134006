"""Whether a prompt fits into its model's window."""

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from services.gateway.row_fields import row_error
from services.gateway.row_texts import is_generation, row_texts
from tidemill import telemetry
from tidemill.errors import RowCode, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import row_pb2

log = telemetry.logger(__name__)


def room_for_prompt(model: records_pb2.ModelReport, job_max_tokens: int) -> int:
    """Most tokens of a prompt whose answer has the job's `max_tokens`, or 1 without; unbounded where it is unknown."""
    if not (model.max_model_len and model.tokenizer_key):
        return sys.maxsize
    return model.max_model_len - (job_max_tokens or 1)


class PromptLengths:
    """Counts the tokens of prompts that could be too long, with the model's own tokenizer. Blocking: call off the loop.

    A token stands for one byte or more, so a text with fewer bytes than the window has tokens fits without counting.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._load = lru_cache(maxsize=4)(lambda key, sha256: _load(store, key, sha256))

    def check(
        self, rows: Sequence[row_pb2.Row], first_index: int, model: records_pb2.ModelReport, job_max_tokens: int
    ) -> list[row_pb2.RowError]:
        """The rows whose content and `max_tokens` (the row's, else the job's, else 1) exceed the window; nothing is
        generated for rows other than prompts and chats.

        Special tokens, such as a chat template's, are not counted here; the worker counts them and fails such a row
        alone.
        """
        if not (model.max_model_len and model.tokenizer_key):
            return []
        errors: list[row_pb2.RowError] = []
        for position, row in enumerate(rows):
            wanted = _wanted(row, job_max_tokens)
            texts = row_texts(row)
            if not _may_exceed(texts, model.max_model_len - wanted):
                continue
            tokens = self._count(texts, model)
            if tokens is None:
                return []
            if tokens + wanted > model.max_model_len:
                errors.append(_too_long(row, first_index + position, tokens, wanted, model))
        return errors

    def _count(self, texts: list[str], model: records_pb2.ModelReport) -> int | None:
        try:
            tokenizer = self._load(model.tokenizer_key, model.tokenizer_sha256)
        except TidemillError as exc:
            # Only the early refusal is lost: the worker counts again and fails a row that is too long.
            log.warning("tokenizer unreadable", model=model.model, error=exc.message)
            return None
        return sum(len(item.ids) for item in tokenizer.encode_batch_fast(texts, add_special_tokens=False))


def _load(store: ObjectStore, key: str, sha256: str) -> Any:
    return Tokenizer.from_buffer(store.get(key, bytes.fromhex(sha256) if sha256 else None))


def _wanted(row: row_pb2.Row, job_max_tokens: int) -> int:
    if not is_generation(row):
        return 0
    return (row.sampling.max_tokens if row.sampling.HasField("max_tokens") else job_max_tokens) or 1


def _may_exceed(texts: list[str], room: int) -> bool:
    if 4 * sum(map(len, texts)) <= room:
        return False
    return sum(len(text.encode()) for text in texts) > room


def _too_long(
    row: row_pb2.Row, index: int, tokens: int, wanted: int, model: records_pb2.ModelReport
) -> row_pb2.RowError:
    field = str(row.WhichOneof("input"))
    window = f"the window of {model.model} holds {model.max_model_len}"
    if is_generation(row):
        message = (
            f"the {field} has {tokens} tokens and max_tokens is {wanted}, together {tokens + wanted}; {window}: "
            f"shorten the {field} or lower max_tokens"
        )
    else:
        message = f"the row has {tokens} tokens; {window}: shorten its text"
    return row_error(row.custom_id, index, RowCode.PROMPT_TOO_LONG, field, message)

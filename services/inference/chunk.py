"""One function runs a chunk in either mode: `run_chunk(dataset, processor) -> dataset`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from services.inference import slices
from services.inference.answers import Origin, checked_request, result_row
from services.inference.engine_config import Call, EngineRow, Outcome, Refusal
from services.inference.rayenv import NAMESPACE
from tidemill import segments

__all__ = ["EngineAwayError", "Processor", "SharedProcessor", "run_chunk"]


class EngineAwayError(Exception):
    """No actor has the engine's name: it ended between two tasks of the dataset."""


class Processor(Protocol):
    """Turns a dataset of input slices into one of result slices."""

    def __call__(self, dataset: Any) -> Any:
        """
        Args:
            dataset: Ray dataset of slices, tables of `segments.INPUT_SCHEMA`.

        Returns:
            Ray dataset of slices, tables of `segments.RESULT_SCHEMA`. Every input row is in one of them,
            but for aborted ones; it may be in two when Ray ran a task again.
        """
        ...


def run_chunk(dataset: Any, processor: Processor) -> Any:
    """The results of a chunk's rows, lazily: nothing runs until the dataset is read."""
    return processor(dataset)


@dataclass(frozen=True)
class SharedProcessor:
    """Rows share a warm engine with other chunks and jobs: stateless tasks call the named actor."""

    actor: str
    call: Call
    origin: Origin

    def __call__(self, dataset: Any) -> Any:
        answered = dataset.map_batches(
            partial(_answer_slices, self), batch_size=None, batch_format="pyarrow", zero_copy_batch=True
        )
        # Each slice leaves its task at once.
        answered.context.target_max_block_size = 1
        return answered


def _answer_slices(processor: SharedProcessor, block: Any) -> Iterator[Any]:
    for table in slices.unpack(block):
        yield from _answer_rows(processor, table)


def _answer_rows(processor: SharedProcessor, table: Any) -> Iterator[Any]:
    rows = {row.row_index: row for row in segments.input_rows(table)}
    requests = {index: checked_request(row) for index, row in rows.items()}
    corrupt = [Outcome(index, item) for index, item in requests.items() if isinstance(item, Refusal)]
    sound = [EngineRow(index, item) for index, item in requests.items() if not isinstance(item, Refusal)]
    for outcomes in _with_engine(processor, corrupt, sound):
        results = [result_row(rows[outcome.row_index], outcome, processor.origin) for outcome in outcomes]
        yield slices.pack(segments.result_table(results))


def _with_engine(processor: SharedProcessor, corrupt: list[Outcome], sound: list[EngineRow]) -> Iterator[list[Outcome]]:
    import ray

    if corrupt:
        yield corrupt
    if sound:
        try:
            actor: Any = ray.get_actor(processor.actor, namespace=NAMESPACE)
        except ValueError as exc:
            raise EngineAwayError(f"there is no engine {processor.actor} any more") from exc
        for reference in actor.generate.options(num_returns="streaming").remote(processor.call, sound):
            yield ray.get(reference)

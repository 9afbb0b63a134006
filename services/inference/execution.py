"""One execution of a Ray dataset, which can be stopped from outside."""

from collections.abc import Iterator
from typing import Any

__all__ = ["Execution"]


class Execution:
    """Runs a dataset once.

    Ray Data ends an execution when its iterator is closed, and a generator can only be closed between two blocks. The
    next block may be minutes of answers away, so the executor is kept as Ray makes it. That name is Ray's own.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._executor: Any = None
        self._stopped = False
        create = dataset._create_executor

        def keep() -> Any:
            self._executor = create()
            return self._executor

        dataset._create_executor = keep

    def blocks(self) -> Iterator[Any]:
        """The blocks as they come; closing ends the execution and frees its tasks."""
        batches = iter(self._dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        try:
            while not self._stopped and (block := next(batches, None)) is not None:
                yield block
        finally:
            batches.close()

    def stop(self) -> None:
        """End its tasks and actors, whatever they are at. Takes seconds; from any thread."""
        self._stopped = True
        if self._executor is not None:
            self._executor.shutdown(force=True)

"""Reading a dataset in a thread, and stopping it between two blocks."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from services.inference import slices
from services.inference.backlog import Backlog
from services.inference.pump import stream_slices


class FakeDataset:
    """A dataset of so many blocks, then a fault or a hang that only the executor's shutdown ends."""

    def __init__(self, blocks: int, then: str) -> None:
        self._blocks = blocks
        self._then = then
        self._shut = threading.Event()
        self.closed = threading.Event()
        self.forced: list[bool] = []

    def _create_executor(self) -> Any:
        return self

    def shutdown(self, *, force: bool) -> None:
        self.forced.append(force)
        self._shut.set()

    def iter_batches(self, **_options: Any) -> Iterator[Any]:
        self._create_executor()
        try:
            for number in range(self._blocks):
                yield slices.pack(pa.table({"row": [number]}))
            if self._then == "fault":
                raise ValueError("no disk")
            if self._then == "hang":
                assert self._shut.wait(30)
        finally:
            self.closed.set()


async def read(dataset: FakeDataset, limit: int) -> list[int]:
    """So many rows of it."""
    rows: list[int] = []
    stream = stream_slices(lambda: dataset, lambda: None, Backlog(1 << 20))
    try:
        async for table in stream:
            if table is not None:
                rows += table.column("row").to_pylist()
            if len(rows) == limit:
                break
    finally:
        await stream.aclose()
    return rows


async def test_a_dataset_is_read_to_its_end() -> None:
    dataset = FakeDataset(3, "end")
    assert await read(dataset, 99) == [0, 1, 2]
    assert dataset.forced == []
    assert dataset.closed.is_set()


async def test_what_came_before_a_fault_is_not_lost() -> None:
    stream = stream_slices(lambda: FakeDataset(2, "fault"), lambda: None, Backlog(1 << 20))
    tables = [await anext(stream), await anext(stream)]
    assert [table and table.column("row").to_pylist() for table in tables] == [[0], [1]]
    with pytest.raises(ValueError, match="no disk"):
        await anext(stream)


async def test_leaving_ends_an_execution_that_hangs() -> None:
    dataset = FakeDataset(2, "hang")
    async with asyncio.timeout(20):
        assert await read(dataset, 2) == [0, 1]
    assert dataset.forced == [True]
    assert await asyncio.to_thread(dataset.closed.wait, 20)


async def test_patience_yields_nothing_now_and_then() -> None:
    dataset = FakeDataset(1, "hang")
    stream = stream_slices(lambda: dataset, lambda: 0.01, Backlog(1 << 20))
    seen = [table is None for table in [await anext(stream), await anext(stream)]]
    await stream.aclose()
    assert True in seen


async def test_no_more_is_read_than_may_wait() -> None:
    dataset, backlog = FakeDataset(50, "end"), Backlog(40)
    stream = stream_slices(lambda: dataset, lambda: None, backlog)
    first = await anext(stream)
    assert first is not None
    most = 40 // first.nbytes
    await until(lambda: backlog.bytes == most * first.nbytes)
    rows = [first.column("row")[0].as_py()]
    async for table in stream:
        assert table is not None
        assert backlog.bytes <= 40
        rows.append(table.column("row")[0].as_py())
    assert rows == list(range(50))
    assert backlog.bytes == 0


async def test_who_leaves_gives_all_room_back() -> None:
    dataset, backlog = FakeDataset(50, "end"), Backlog(40)
    stream = stream_slices(lambda: dataset, lambda: None, backlog)
    await anext(stream)
    await until(lambda: backlog.bytes > 0)
    await stream.aclose()
    assert await asyncio.to_thread(dataset.closed.wait, 20)
    await until(lambda: backlog.bytes == 0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.01)

"""A chunk between engine and scheduler, with both made up: deaths, halts, suspects, other weights."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.inference import chunk_task
from services.inference.actor import EngineLostError
from services.inference.answers import Origin, result_row
from services.inference.backlog import Backlog
from services.inference.blame import EngineFailedError
from services.inference.busy import BusyMeter
from services.inference.chunk_task import ChunkTask, IncompleteError
from services.inference.engine_config import Answer, Outcome
from services.inference.gate import Gate
from services.inference.held import HeldLease
from services.inference.identity import Record
from services.inference.link import LeaseVoidError
from services.inference.resident import WeightsChangedError
from services.inference.store_link import StoreLink
from tests.inference.fakes import FakeScheduler
from tests.inference.rows import input_row, prompt
from tidemill import rowset, segments
from tidemill.errors import TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.store import open_store
from tidemill.v1 import job_pb2

JOB = "tenants/acme/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
ROWS = 6
Step = int | BaseException | Callable[[], Any]


@dataclass(frozen=True)
class _Files:
    digest: str = "d" * 64
    folder: str = "/models/m"


@dataclass
class FakeEngine:
    """What a chunk sees of an engine; `aborted` keeps the groups."""

    files: Any = field(default_factory=_Files)
    actor_name: str = "engine"
    actor_id: str = "ab"
    build: str = "vllm 0 (cpu)"
    dead: bool = False
    node_died: bool = False
    record: Record = field(default_factory=lambda: Record(b"\x0e" * 32, job_pb2.EQUAL_ANSWERS_PROMISED))
    busy: BusyMeter = field(default_factory=BusyMeter)
    aborted: list[str] = field(default_factory=list[str])

    @property
    def actor(self) -> Any:
        return self

    @property
    def abort(self) -> Any:
        return self

    async def remote(self, group: str) -> None:
        self.aborted.append(group)


class FakeEngines:
    """One engine for all models, with the methods that a chunk calls."""

    build = "vllm 0 (cpu)"

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.passage = Gate()
        self.probed = 0

    def gate(self, model: str) -> Gate:
        return self.passage

    @asynccontextmanager
    async def hold(self, model: str) -> AsyncGenerator[FakeEngine]:
        yield self.engine

    def proved(self, model: str) -> None:
        """Nothing to remember."""

    async def lost(self, model: str, engine: FakeEngine, message: str) -> None:
        engine.dead = True

    async def probe(self, model: str, engine: FakeEngine) -> None:
        self.probed += 1


class Bench:
    """A chunk of six rows; `steps` are what its dataset does: answers a row, calls, or raises."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, **lease: Any) -> None:
        self.engines, self.scheduler = FakeEngines(), FakeScheduler([])
        self.held = HeldLease(
            pb.Lease(spec=records_pb2.JobSpec(name=JOB, model="m"), fence=7, chunk_rows=ROWS, attempt=1, **lease)
        )
        self.steps: list[Step] = []
        links: Any = (self.engines, self.scheduler)
        monkeypatch.setattr(chunk_task, "stream_slices", self._stream)
        self.store = open_store(home.as_uri())
        self.task = ChunkTask(
            self.held, links[0], StoreLink(self.store), home.as_uri(), links[1], 4, 60.0, Backlog(1 << 20)
        )

    async def _stream(self, _build: Any, _patience: Any, _backlog: Any) -> AsyncIterator[Any]:
        for step in self.steps:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, int):
                yield _table(step)
            else:
                step()
                await asyncio.sleep(0.01)

    async def run(self, *steps: Step) -> None:
        self.steps = list(steps)
        await self.task.run()

    @property
    def committed(self) -> list[list[int]]:
        """Rows of each part."""
        return [list(rowset.indices(rowset.from_bytes(part.row_bitmap))) for part in self.scheduler.committed]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def _table(index: int) -> Any:
    answer = Answer("text", "stop", 5, 2, 1, 0.1, 0.2, 0.3)
    row = input_row(index, prompt(f"r{index}", "text"))
    return segments.result_table([result_row(row, Outcome(index, answer), Origin(1, 0, "d" * 64, "b"))])


def wrapped(cause: Exception) -> BaseException:
    from ray.exceptions import RayTaskError

    return RayTaskError("generate", "trace", cause)


async def test_a_death_is_told_once_finished_rows_are_in(bench: Bench) -> None:
    with pytest.raises(EngineFailedError, match="signal 9") as caught:
        await bench.run(0, 3, wrapped(EngineLostError("the engine of m died: signal 9")))
    assert caught.value.died
    assert bench.engines.engine.dead
    assert bench.committed == [[0, 3]]


async def test_a_chunk_that_trips_over_a_dead_engine_was_inside_too(bench: Bench) -> None:
    def die() -> None:
        bench.engines.engine.dead = True

    with pytest.raises(EngineFailedError) as caught:
        await bench.run(die, wrapped(ValueError("Failed to look up actor")))
    assert caught.value.died


async def test_a_failed_task_is_no_death(bench: Bench) -> None:
    with pytest.raises(EngineFailedError, match="no disk") as caught:
        await bench.run(1, wrapped(ValueError("no disk")))
    assert not caught.value.died
    assert bench.committed == [[1]]
    assert bench.engines.engine.aborted == [f"{JOB}#7"], "its other rows are stopped"


async def test_an_engine_that_cannot_be_reached_is_asked_first(bench: Bench) -> None:
    from ray.exceptions import ActorUnavailableError

    with pytest.raises(EngineFailedError) as caught:
        await bench.run(ActorUnavailableError("away", b"\x01" * 16))
    assert (caught.value.died, bench.engines.probed) == (False, 1)


async def test_a_halted_chunk_commits_what_is_done(bench: Bench) -> None:
    with pytest.raises(LeaseVoidError):
        await bench.run(0, 1, bench.held.halted.set, 4)
    assert bench.committed == [[0, 1, 4]]
    assert bench.engines.engine.aborted == [f"{JOB}#7"]


async def test_a_void_chunk_commits_nothing_more(bench: Bench) -> None:
    with pytest.raises(LeaseVoidError):
        await bench.run(0, 1, bench.held.void.set)
    assert bench.committed == []
    assert bench.engines.engine.aborted == [f"{JOB}#7"]


async def test_a_chunk_that_was_done_when_halted_is_done(bench: Bench) -> None:
    await bench.run(*range(ROWS), bench.held.halted.set)
    assert bench.committed == [list(range(ROWS))]


async def test_rows_that_never_came_are_missed(bench: Bench) -> None:
    with pytest.raises(IncompleteError):
        await bench.run(0, 1)


async def test_a_suspect_waits_until_it_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suspect = Bench(tmp_path, monkeypatch, alone=True)
    beside: list[int] = []
    async with suspect.engines.passage.enter(alone=False):
        running = asyncio.create_task(suspect.run(*range(5), lambda: beside.append(suspect.engines.passage.inside), 5))
        await asyncio.sleep(0.05)
        assert suspect.engines.passage.waiting == 1
    await running
    assert beside == [1]


@pytest.mark.parametrize("end", ["void", "halted", "stopping"])
async def test_a_suspect_that_waits_ends_with_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    suspect = Bench(tmp_path, monkeypatch, alone=True)
    async with suspect.engines.passage.enter(alone=False):
        running = asyncio.create_task(suspect.run(0))
        await asyncio.sleep(0.02)
        getattr(suspect.held, end).set()
        with pytest.raises(LeaseVoidError):
            await asyncio.wait_for(running, 5)
        assert suspect.engines.passage.waiting == 0


async def test_other_weights_than_promised_do_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Bench(tmp_path, monkeypatch, model_digest="e" * 64)
    with pytest.raises(WeightsChangedError, match=r"accepted with weights eeee.*holds dddd.*bring the weights back"):
        await asked.run(0)
    assert asked.committed == []
    same = Bench(tmp_path, monkeypatch, model_digest="d" * 64)
    await same.run(*range(ROWS))
    assert same.committed == [list(range(ROWS))]


async def test_condemned_rows_are_in_although_the_others_fail(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_task, "condemned_table", lambda *_: _table(2))
    with pytest.raises(EngineFailedError):
        await bench.run(wrapped(EngineLostError("died")))
    assert bench.committed == [[2]]


async def test_input_that_cannot_be_read_is_not_the_engines_fault(bench: Bench) -> None:
    from services.inference.source import InputUnreadableError

    with pytest.raises(TidemillError, match="changed"):
        await bench.run(wrapped(InputUnreadableError("a segment was changed", "DATA_CORRUPT")))


async def test_parts_carry_the_time_of_the_engine(bench: Bench) -> None:
    await bench.run(*range(ROWS), lambda: None)
    assert bench.scheduler.busy_seconds[0] == pytest.approx(bench.engines.engine.busy.busy_seconds)
    assert bench.scheduler.busy_seconds[0] >= 0.01

"""Which engines are in memory: loaded on demand, unloaded when idle, replaced when dead, never in a loop.

Ray is the real one; the engines in its actors answer nothing and fail on demand.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from services.inference import engines, loader, orphans, slices
from services.inference.backlog import Backlog
from services.inference.engines import Engines
from services.inference.models import Catalog
from services.inference.pump import stream_slices
from services.inference.residency import Wishes
from services.inference.resident import EngineUnavailableError, WeightsChangedError
from services.inference.settings import InferenceSettings, ModelSource
from services.inference.store_link import StoreLink
from tests.inference.fakes import FakeEngineActor
from tidemill.store import open_store
from tidemill.tiny_model import make_tiny
from tidemill.v1 import model_service_pb2
from tidemill.weights import WeightDigests

# Ray leaves files and sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("local_ray"),
]

MODELS = ("one", "two", "three")
State = model_service_pb2.ModelState


class Fleet:
    """Engines over three tiny models."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.home = home
        for index, model in enumerate(MODELS):
            make_tiny(home / model, seed=index)
        sources = [ModelSource(model, str(home / model)) for model in MODELS]
        self.store = StoreLink(open_store((home / "store").as_uri()))
        catalog = Catalog(sources, WeightDigests(home / "digests.json"), 512)
        values: dict[str, Any] = {"kv_cache_bytes": 0, "reserve_bytes": 0, **settings}
        self.engines = Engines(InferenceSettings(**values), catalog, self.store, home, FakeEngineActor)

    def states(self) -> dict[str, str]:
        """State of each model as the scheduler is told."""
        return {
            report.model: State.Name(report.state).removeprefix("MODEL_STATE_") for report in self.engines.reports()
        }

    def replicas(self, model: str) -> int:
        """Engines of the model that live."""
        return self.engines.health()[model]["replicas"]

    async def touch(self, model: str) -> str:
        """Use the model's engine once; the name of its actor."""
        async with self.engines.hold(model) as engine:
            return engine.actor_name


@contextlib.asynccontextmanager
async def fleet(home: Path, **settings: Any) -> AsyncGenerator[Fleet]:
    made = Fleet(home, **settings)
    await made.engines.describe()
    try:
        yield made
    finally:
        await made.engines.close()


async def test_an_engine_is_loaded_once_and_stays_warm(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made:
        assert set(made.states().values()) == {"COLD"}
        names = await asyncio.gather(made.touch("one"), made.touch("one"))
        assert len(set(names)) == 1
        assert made.states() == {"one": "LOADED", "two": "COLD", "three": "COLD"}
        report = made.engines.reports()[0]
        assert (report.max_model_len, len(report.digest), report.has_chat_template) == (512, 64, True)


async def test_the_least_recently_used_idle_engine_makes_room(tmp_path: Path) -> None:
    async with fleet(tmp_path, max_engines=2) as made:
        await made.touch("one")
        await made.touch("two")
        await made.touch("one")
        await made.touch("three")
        assert made.states() == {"one": "LOADED", "two": "COLD", "three": "LOADED"}


async def test_an_engine_in_use_is_not_unloaded(tmp_path: Path) -> None:
    async with fleet(tmp_path, max_engines=1) as made:
        async with made.engines.hold("one"):
            waiting = asyncio.create_task(made.touch("two"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(waiting), 0.5)
            assert made.states()["one"] == "LOADED"
        await waiting
        assert made.states() == {"one": "COLD", "two": "LOADED", "three": "COLD"}


async def test_a_failed_load_gives_the_engines_words_and_no_loop(tmp_path: Path) -> None:
    async with fleet(tmp_path, retry_load_seconds=0.5) as made:
        (tmp_path / "one/fails").touch()
        with pytest.raises(EngineUnavailableError, match=r"tensor lm_head.weight is missing"):
            await made.touch("one")
        assert made.states()["one"] == "FAILED"
        (tmp_path / "one/fails").unlink()
        with pytest.raises(EngineUnavailableError):
            await made.touch("one")
        assert await until(lambda: made.states()["one"] == "COLD"), "tried again after the pause only"
        await made.touch("one")
        assert made.states()["one"] == "LOADED"


async def test_a_load_waits_for_a_store_that_is_away_and_says_so(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made:
        root, aside = tmp_path / "store", tmp_path / "aside"
        root.rename(aside)
        loading = asyncio.create_task(made.touch("one"))
        assert await until(lambda: made.store.away), "no lease is taken meanwhile"
        report = made.engines.reports()[0]
        assert (State.Name(report.state), made.engines.health()["one"]["state"]) == ("MODEL_STATE_LOADING", "LOADING")
        assert report.message.startswith("waits for the object store: the object store is away")
        aside.rename(root)
        await asyncio.wait_for(loading, 60)
        assert (made.states()["one"], made.engines.reports()[0].message) == ("LOADED", "")
        assert not made.store.away


async def test_a_silent_engine_is_dead_and_replaced(tmp_path: Path) -> None:
    async with fleet(tmp_path, probe_seconds=0.1, canary_seconds=0.5) as made:
        first = await made.touch("one")
        watch = asyncio.create_task(made.engines.watch())
        (tmp_path / "one/silent").touch()
        assert await until(lambda: made.states()["one"] == "COLD")
        (tmp_path / "one/silent").unlink()
        assert await made.touch("one") != first
        watch.cancel()


async def test_three_deaths_in_a_row_fail_the_model(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made:
        for death in range(3):
            async with made.engines.hold("one") as engine:
                await made.engines.lost("one", engine, f"signal {death}")
        assert made.states()["one"] == "FAILED"
        assert "3 times in a row" in made.engines.reports()[0].message


async def test_a_dead_engine_makes_room_for_its_successor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    monkeypatch.setattr(engines, "is_alive", lambda _node: looked.wait(60))
    async with fleet(tmp_path, max_engines=1) as made:
        async with made.engines.hold("one") as engine:
            dying = asyncio.create_task(made.engines.lost("one", engine, "signal 9"))
            assert await until(lambda: engine.dead)
            following = asyncio.create_task(made.touch("one"))
            # Whether its load begins before the old engine is gone is left open; that both end is not.
            await until(lambda: made.states()["one"] == "LOADING", 0.5)
            looked.set()
            async with asyncio.timeout(60):
                await dying
        async with asyncio.timeout(60):
            assert await following != engine.actor_name


async def test_a_replica_that_dies_makes_room_while_its_model_loads(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made, made.engines.hold("one") as engine:
        slot = made.engines._slot("one")  # pyright: ignore[reportPrivateUsage] - its lock is held as a load holds it
        async with slot.lock:
            dying = asyncio.create_task(made.engines.lost("one", engine, "signal 9"))
            assert await until(lambda: engine not in slot.engines)
        await dying


async def test_an_engine_is_dead_even_where_nobody_knows_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_node: str) -> bool:
        raise ConnectionError("the head is away")

    monkeypatch.setattr(engines, "is_alive", fail)
    async with fleet(tmp_path) as made:
        async with made.engines.hold("one") as engine:
            await asyncio.gather(*(made.engines.lost("one", engine, "signal 9") for _ in range(2)))
        assert (made.states()["one"], made.replicas("one")) == ("COLD", 0)


async def test_processes_that_do_not_end_hold_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(_home: Path) -> int:
        raise TimeoutError("processes [7] do not end")

    monkeypatch.setattr(orphans, "reap", stuck)
    async with fleet(tmp_path, max_engines=1) as made:
        await made.touch("one")
        await made.touch("two")
        assert made.states() == {"one": "COLD", "two": "LOADED", "three": "COLD"}
        (tmp_path / "three/fails").touch()
        with pytest.raises(EngineUnavailableError, match=r"lm_head\.weight is missing"):
            await made.touch("three")


async def test_room_that_comes_from_outside_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more, choose = asyncio.Event(), loader.choose
    monkeypatch.setattr(loader, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(
        loader, "choose", lambda nodes, placed, *of: choose(nodes, [] if more.is_set() else placed, *of)
    )
    async with fleet(tmp_path, max_engines=1) as made, made.engines.hold("one"):
        waiting = asyncio.create_task(made.touch("two"))
        assert not await until(waiting.done, 0.5)
        more.set()
        async with asyncio.timeout(60):
            await waiting


async def test_suspects_may_kill_their_engine_more_often(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made:
        for death in range(4):
            async with made.engines.gate("one").enter(alone=True), made.engines.hold("one") as engine:
                await made.engines.lost("one", engine, f"signal {death}")
        assert made.states()["one"] == "COLD"


async def test_deaths_between_answers_do_not_add_up(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made:
        for _ in range(4):
            async with made.engines.hold("one") as engine:
                made.engines.proved("one")
                await made.engines.lost("one", engine, "signal 9")
        assert made.states()["one"] == "COLD"


async def test_idle_engines_are_unloaded(tmp_path: Path) -> None:
    async with fleet(tmp_path, probe_seconds=0.1, idle_ttl_seconds=0.3) as made:
        watch = asyncio.create_task(made.engines.watch())
        async with made.engines.hold("one"):
            assert not await until(lambda: made.states()["one"] != "LOADED", 1.0)
        assert await until(lambda: made.states()["one"] == "COLD")
        watch.cancel()


async def test_pinned_models_are_loaded_and_stay(tmp_path: Path) -> None:
    async with fleet(tmp_path, max_engines=2, probe_seconds=0.1, idle_ttl_seconds=0.3) as made:
        watch = asyncio.create_task(made.engines.watch())
        for _ in range(3):
            made.engines.wish(Wishes.of(["one", "elsewhere"], []))
        assert made.states()["one"] == "LOADING"
        assert await until(lambda: made.states()["one"] == "LOADED")
        assert made.engines.reports()[0].load_seconds > 0
        await made.touch("two")
        await made.touch("three")
        assert made.states()["two"] == "COLD", "the idle one that is not pinned made room"
        assert await until(lambda: made.states() == {"one": "LOADED", "two": "COLD", "three": "COLD"})
        assert not await until(lambda: made.states()["one"] != "LOADED", 0.6), "nor is it unloaded when idle"
        watch.cancel()


async def test_without_room_beside_the_pinned_the_load_fails_and_says_why(tmp_path: Path) -> None:
    async with fleet(tmp_path, max_engines=1) as made:
        made.engines.wish(Wishes.of(["one"], []))
        assert await until(lambda: made.states()["one"] == "LOADED")
        with pytest.raises(EngineUnavailableError, match=r"pinned models one: unpin one, raise TIDEMILL_INFERENCE_MAX"):
            await made.touch("two")


async def test_a_drained_model_is_unloaded_once_its_chunks_are_done(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made:
        async with made.engines.gate("one").enter(alone=False), made.engines.hold("one"):
            made.engines.wish(Wishes.of(["one"], ["one"]))
            assert not await until(lambda: made.states()["one"] != "LOADED", 0.5)
        made.engines.wish(Wishes.of(["one"], ["one"]))
        assert await until(lambda: made.states()["one"] == "COLD")


async def test_whoever_gives_up_waiting_leaves_the_load_to_the_next(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made:
        first = asyncio.create_task(made.touch("one"))
        assert await until(lambda: made.states()["one"] == "LOADING")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await until(lambda: made.states()["one"] == "LOADED")


async def test_replicas_share_the_chunks_and_one_that_dies_comes_back(tmp_path: Path) -> None:
    async with fleet(tmp_path, replicas="one=2", retry_load_seconds=0.1) as made:
        first = await made.touch("one")
        assert await until(lambda: made.replicas("one") == 2)
        async with made.engines.hold("one") as left, made.engines.hold("one") as right:
            assert {left.actor_name, right.actor_name} > {first}
            assert left.node_id == right.node_id
            await made.engines.lost("one", left, "signal 9")
            assert made.states()["one"] == "LOADED", "the other one lives"
            async with made.engines.hold("one") as again:
                assert again is right
        assert await until(lambda: made.replicas("one") == 2)
        assert made.engines.health()["one"]["engine_deaths"] == 1
        await made.touch("two")
        assert made.replicas("two") == 1


async def test_a_replica_drives_no_other_model_out(tmp_path: Path) -> None:
    async with fleet(tmp_path, replicas="3", max_engines=2) as made:
        await made.touch("one")
        assert await until(lambda: made.replicas("one") == 2)
        await made.touch("two")
        assert (made.replicas("one"), made.replicas("two")) == (1, 1)


async def test_ranks_share_a_placement_group_that_ends_with_the_engine(tmp_path: Path) -> None:
    from ray.util import placement_group_table

    def groups() -> list[tuple[str, Any]]:
        table = placement_group_table().values()
        return [(item["state"], item["bundles"]) for item in table if item["state"] != "REMOVED"]

    async with fleet(tmp_path, tensor_parallel="one=2") as made:
        await made.touch("one")
        assert [(state, list(bundles.values())) for state, bundles in groups()] == [("CREATED", [{"CPU": 2.0}])]
        await made.touch("two")
        assert len(groups()) == 1, "one rank needs none"
        made.engines.wish(Wishes.of([], ["one"]))
        assert await until(lambda: made.states()["one"] == "COLD")
        assert await until(lambda: not groups())


async def test_out_of_memory_is_tried_once_more_with_half_the_cache(tmp_path: Path) -> None:
    async with fleet(tmp_path, kv_cache_bytes=100 << 20) as made:
        (tmp_path / "one/small").write_text(str(60 << 20))
        (tmp_path / "two/small").write_text(str(40 << 20))
        await made.touch("one")
        assert made.states()["one"] == "LOADED"
        assert "smaller KV cache (50 MiB) than configured" in made.engines.reports()[0].message
        with pytest.raises(EngineUnavailableError, match="out of memory"):
            await made.touch("two")
        assert made.states()["two"] == "FAILED"


async def test_what_keeps_failing_waits_for_another_folder_or_an_operator(tmp_path: Path) -> None:
    async with fleet(tmp_path, retry_load_seconds=0.01, load_attempts=2) as made:
        (tmp_path / "one/fails").touch()
        for _ in range(2):
            assert await until(lambda: made.states()["one"] == "COLD")
            with pytest.raises(EngineUnavailableError):
                await made.touch("one")
        assert not await until(lambda: made.states()["one"] != "FAILED", 0.5)
        assert "2 times in a row" in made.engines.reports()[0].message
        made.engines.wish(Wishes.of(["one"], []))
        assert made.states()["one"] == "LOADING", "an operator's word is one more try"
        assert await until(lambda: made.states()["one"] != "LOADING")
        (tmp_path / "one/fails").unlink()
        assert await until(lambda: made.states()["one"] == "COLD"), "another folder is as well"
        await made.touch("one")


async def test_changed_weights_are_not_served(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made:
        await made.touch("one")
        make_tiny(tmp_path / "one", seed=9)
        with pytest.raises(WeightsChangedError, match="restart the inference service"):
            await made.touch("one")


async def test_a_missing_folder_is_failed_from_the_start(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    (tmp_path / "two/config.json").unlink()
    await made.engines.describe()
    assert made.states()["two"] == "FAILED"
    with pytest.raises(EngineUnavailableError, match="does not offer"):
        await made.touch("four")


class Hanging:
    """A stage that says who it is, answers one block, and hangs at the next."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._calls = 0

    def __call__(self, block: Any) -> Any:
        self._calls += 1
        (self._folder / f"{self._calls}-{os.getpid()}").touch()
        if self._calls > 1:
            threading.Event().wait()
        return block


async def test_a_dataset_is_read_to_its_end() -> None:
    import ray.data

    blocks = [slices.pack(pa.table({"row": [number]})) for number in range(4)]
    backlog = Backlog(1 << 20)
    tables = [table async for table in stream_slices(lambda: ray.data.from_arrow(blocks), lambda: None, backlog)]
    assert sorted(row for table in tables if table for row in table.column("row").to_pylist()) == [0, 1, 2, 3]


async def test_leaving_a_dataset_ends_its_actors_at_work(tmp_path: Path) -> None:
    def build() -> Any:
        import ray.data

        blocks = [slices.pack(pa.table({"row": [number]})) for number in range(4)]
        stage: Any = ray.data.from_arrow(blocks).map_batches
        return stage(
            Hanging,
            fn_constructor_args=[str(tmp_path)],
            concurrency=1,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0.1,
        )

    def hanging() -> list[int]:
        return [int(path.name[2:]) for path in tmp_path.glob("2-*")]

    stream = stream_slices(build, lambda: 0.2, Backlog(1 << 20))
    async with contextlib.aclosing(stream), asyncio.timeout(120):
        async for _ in stream:
            if hanging():
                break
    (pid,) = hanging()
    assert await until(lambda: not psutil.pid_exists(pid))


async def until(condition: Any, seconds: float = 60.0) -> bool:
    """Whether the condition came true in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while loop.time() < deadline:
        if condition():
            return True
        await asyncio.sleep(0.02)
    return False

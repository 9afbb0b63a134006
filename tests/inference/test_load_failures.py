"""The real vLLM on CPU, where it does not load: what the model's state says, and what is tried again."""

import resource
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.inference.actor import EngineActor
from services.inference.engines import Engines
from services.inference.models import Catalog
from services.inference.resident import EngineUnavailableError
from services.inference.settings import InferenceSettings, ModelSource
from services.inference.store_link import StoreLink
from tidemill.store import open_store
from tidemill.tiny_model import make_tiny
from tidemill.v1 import model_service_pb2
from tidemill.weights import WeightDigests

# Ray leaves files and sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.asyncio(loop_scope="module"),
]

GIB = 1 << 30
KV_BYTES = 4 * GIB
# Room for the engine's own 1.2 GiB and half of the cache, not for all of it.
DATA_BYTES = int(4.7 * GIB)


class ConfinedEngineActor(EngineActor):
    """The real engine in processes that get no more memory than so much."""

    async def load(self) -> float:
        resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
        return await super().load()


@asynccontextmanager
async def engines(home: Path) -> AsyncGenerator[Engines]:
    models = ("tiny", "broken", "empty")
    for model in models:
        make_tiny(home / model)
    (home / "broken/model.safetensors").write_bytes(b"not weights")
    (home / "empty/model.safetensors").unlink()
    catalog = Catalog(
        [ModelSource(model, str(home / model)) for model in models],
        WeightDigests(home / "digests.json"),
        512,
    )
    settings = InferenceSettings(kv_cache_bytes=KV_BYTES, reserve_bytes=0, max_num_seqs=16)
    store = StoreLink(open_store((home / "store").as_uri()))
    made = Engines(settings, catalog, store, home, ConfinedEngineActor)
    await made.describe()
    try:
        yield made
    finally:
        await made.close()


async def test_what_does_not_load_says_why_in_its_own_words(tmp_path: Path) -> None:
    async with engines(tmp_path) as made:
        states = {report.model: report for report in made.reports()}
        assert states["empty"].state == model_service_pb2.MODEL_STATE_FAILED
        assert "holds no weight files" in states["empty"].message

        with pytest.raises(EngineUnavailableError, match="SafetensorError: Error while deserializing header"):
            async with made.hold("broken"):
                pass
        assert made.health()["broken"]["state"] == "FAILED"

        async with made.hold("tiny") as engine:
            await engine.actor.probe.remote()
        report = next(item for item in made.reports() if item.model == "tiny")
        assert report.state == model_service_pb2.MODEL_STATE_LOADED
        assert "loaded with a smaller KV cache (2048 MiB) than configured" in report.message
        assert "can't allocate memory: you tried to allocate" in report.message

"""A real scheduler and gateway with a worker that makes up its answers, for tests from the user's side."""

import asyncio
import itertools
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import PEPPER, Stack
from tidemill.client import Client
from tidemill.keys import create_key
from tidemill.store import ObjectStore, open_store
from tidemill.tiny_model import make_tiny
from tidemill.v1 import model_service_pb2

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Service:
    """Running processes and the model that their worker offers."""

    stack: Stack
    model: str

    @property
    def address(self) -> str:
        return self.stack.address_of("gateway")

    @property
    def key(self) -> str:
        return self.stack.key

    def client(self, key: str | None = None) -> Client:
        return Client(self.address, key or self.key, patience=30)

    def key_of(self, tenant: str, *, admin: bool = False) -> str:
        """A key of another tenant."""
        return create_key(self.stack.home / "keys.json", PEPPER, tenant, admin=admin)

    def idle_model(self) -> str:
        """A model that a worker offers and never works for: its jobs wait. It generates only."""
        model = f"idle-{next(_numbers)}"

        async def offer() -> None:
            worker = FakeWorker(self.stack.address_of("scheduler"), self._store, model, _tokenizer(self.stack.home))
            await worker.offer(worker.report())
            await worker.close()

        asyncio.run(offer())
        return model

    @property
    def _store(self) -> ObjectStore:
        return open_store((self.stack.home / "store").as_uri())

    @property
    def environment(self) -> dict[str, str]:
        """What points the command at this service."""
        return {"TIDEMILL_ADDRESS": self.address, "TIDEMILL_API_KEY": self.key, "TIDEMILL_HOME": str(self.stack.home)}

    @contextmanager
    def working(self) -> Generator[None]:
        """While inside, the worker answers what is queued; its model is good for every task."""
        loop, stop = asyncio.new_event_loop(), threading.Event()

        async def work() -> None:
            scheduler = self.stack.address_of("scheduler")
            worker = FakeWorker(scheduler, self._store, self.model, _tokenizer(self.stack.home))
            worker.tasks = [task for task in model_service_pb2.Task.values() if task]
            async with worker:
                offered.set()
                while not stop.is_set():
                    await worker.run()

        offered = threading.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(work()))
        thread.start()
        try:
            assert offered.wait(30)
            yield
        finally:
            stop.set()
            thread.join(30)
            loop.close()


def _tokenizer(home: Path) -> bytes:
    folder = home / "tiny"
    if not folder.exists():
        make_tiny(folder)
    return (folder / "tokenizer.json").read_bytes()


@contextmanager
def running_service(home: Path) -> Generator[Service]:
    """Scheduler and gateway on free ports."""
    stack = Stack(home, settings={"TIDEMILL_SCHEDULER_CHUNK_ROWS": "50", "TIDEMILL_GATEWAY_SEGMENT_ROWS": "300"})
    try:
        stack.start("scheduler")
        stack.start("gateway")
        yield Service(stack, f"model-{next(_numbers)}")
    finally:
        stack.close()

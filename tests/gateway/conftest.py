"""One scheduler and one gateway for all tests; a worker and a model for each."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.gateway.client import GatewayClient
from tests.gateway.fake_worker import FakeWorker
from tests.stores import folder_store
from tests.system.processes import PEPPER, Stack
from tidemill.keys import create_key
from tidemill.store.local import LocalStore
from tidemill.tiny_model import make_tiny

_numbers = itertools.count(1)

SETTINGS = {
    "TIDEMILL_SCHEDULER_CHUNK_ROWS": "50",
    "TIDEMILL_SCHEDULER_QUOTAS": '{"thrifty": {"jobs": 1, "rows": 30}}',
    "TIDEMILL_GATEWAY_HEARTBEAT_SECONDS": "0.5",
    "TIDEMILL_GATEWAY_SEGMENT_ROWS": "300",
    "TIDEMILL_GATEWAY_DRAIN_SECONDS": "5",
}


def next_model() -> str:
    """A model that no other test asks for, so that its worker gets no other test's work."""
    return f"model-{next(_numbers)}"


def start_stack(home: Path) -> Stack:
    """Scheduler and gateway on free ports, with small chunks and segments."""
    stack = Stack(home, settings=SETTINGS)
    stack.start("scheduler")
    stack.start("gateway")
    return stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = start_stack(tmp_path_factory.mktemp("gateway"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def mortal_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Processes that tests may kill."""
    started = start_stack(tmp_path_factory.mktemp("mortal"))
    yield started
    started.close()


@pytest.fixture
def own_stack(mortal_stack: Stack) -> Stack:
    """Processes that a test may kill, all of them alive."""
    for name in ("scheduler", "gateway"):
        if name not in mortal_stack.running:
            mortal_stack.start(name)
    return mortal_stack


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A byte-level tokenizer: one token a byte at most."""
    folder = tmp_path_factory.mktemp("model")
    make_tiny(folder)
    return (folder / "tokenizer.json").read_bytes()


@pytest.fixture
def store(stack: Stack) -> LocalStore:
    return folder_store(stack.home / "store")


@pytest.fixture
async def worker(stack: Stack, store: LocalStore, tokenizer: bytes) -> AsyncIterator[FakeWorker]:
    async with FakeWorker(stack.address_of("scheduler"), store, next_model(), tokenizer) as started:
        yield started


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(stack.address_of("gateway"), stack.key) as opened:
        yield opened


@pytest.fixture
async def stranger(stack: Stack) -> AsyncIterator[GatewayClient]:
    """A client of another tenant."""
    key = create_key(stack.home / "keys.json", PEPPER, "other")
    async with GatewayClient(stack.address_of("gateway"), key) as opened:
        yield opened


@pytest.fixture
async def operator(stack: Stack) -> AsyncIterator[GatewayClient]:
    """A client with an admin key of a tenant of its own."""
    key = create_key(stack.home / "keys.json", PEPPER, "operator", admin=True)
    async with GatewayClient(stack.address_of("gateway"), key) as opened:
        yield opened


@pytest.fixture
async def thrifty(stack: Stack) -> AsyncIterator[GatewayClient]:
    """A client of a tenant that may hold one job and thirty rows."""
    key = create_key(stack.home / "keys.json", PEPPER, "thrifty")
    async with GatewayClient(stack.address_of("gateway"), key) as opened:
        yield opened

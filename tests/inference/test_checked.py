"""Digests that are remembered for a while."""

from pathlib import Path

import pytest

from services.inference import checked
from services.inference.checked import CheckedFiles
from tidemill.errors import Reason, TidemillError
from tidemill.store import StoredFile, open_store
from tidemill.store.local import LocalStore


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class CountingStore(LocalStore):
    """Counts what is hashed."""

    hashed = 0

    def verify(self, key: str, sha256: bytes) -> None:
        self.hashed += 1
        super().verify(key, sha256)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    open_store(tmp_path.as_uri())
    return CountingStore(tmp_path)


@pytest.fixture
def file(store: CountingStore) -> StoredFile:
    return store.put("in/0.parquet", b"rows")


def test_a_file_is_hashed_once_until_its_time_is_over(store: CountingStore, file: StoredFile) -> None:
    clock = Clock()
    files = CheckedFiles(store, clock)
    for _ in range(3):
        files.verify(file.key, file.sha256)
    assert store.hashed == 1
    store.path(file.key).write_bytes(b"other")
    clock.now += 301
    with pytest.raises(TidemillError, match="was changed after it was written"):
        files.verify(file.key, file.sha256)


def test_what_is_not_sound_is_looked_at_again(store: CountingStore, file: StoredFile) -> None:
    files = CheckedFiles(store)
    store.path(file.key).rename(store.root / "aside")
    for _ in range(2):
        with pytest.raises(TidemillError) as caught:
            files.verify(file.key, file.sha256)
        assert caught.value.reason is Reason.DATA_CORRUPT
    (store.root / "aside").rename(store.path(file.key))
    files.verify(file.key, file.sha256)
    with pytest.raises(TidemillError):
        files.verify(file.key, bytes(32))
    assert store.hashed == 4


def test_what_was_not_asked_for_longest_is_forgotten(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "_REMEMBERED_FILES", 2)
    files, stored = CheckedFiles(store), [store.put(f"in/{name}", name.encode()) for name in "abc"]
    for index in (0, 1, 0, 2, 0, 1):
        files.verify(stored[index].key, stored[index].sha256)
    assert store.hashed == 4, "b was forgotten for c"

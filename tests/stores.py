"""Object stores for tests."""

from pathlib import Path

from tidemill.store import open_store
from tidemill.store.local import LocalStore


def folder_store(folder: Path) -> LocalStore:
    """The store in `folder`, made where there is none, with its `root` and `path`."""
    store = open_store(folder.as_uri())
    assert isinstance(store, LocalStore)
    return store

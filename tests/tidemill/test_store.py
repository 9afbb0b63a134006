"""What is special to an object store that is a folder; the rest is in test_store_conformance."""

import errno
import os
from pathlib import Path

import pytest

from tests.stores import folder_store
from tidemill.digests import sha256
from tidemill.errors import Reason, TidemillError
from tidemill.store import MARKER, open_store
from tidemill.store.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return folder_store(tmp_path / "new" / "store")


@pytest.mark.parametrize("uri", ["gs://bucket/x", "file://host/x", "/plain", "file:relative"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(TidemillError, match="file:///absolute"):
        open_store(uri)


def test_uri_of_a_key_is_absolute(store: LocalStore) -> None:
    assert store.uri("a/b") == (store.root / "a" / "b").as_uri()


def test_a_failed_write_leaves_nothing(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a/old", b"x")

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(TidemillError, match="No space left") as caught:
        store.put("a/new", b"data")
    assert caught.value.reason is Reason.STORE_FAILED
    assert os.listdir(store.root / "a") == ["old"]


def test_a_file_in_the_way_is_reported(store: LocalStore) -> None:
    store.put("a", b"file")
    with pytest.raises(TidemillError) as caught:
        store.put("a/b", b"")
    assert caught.value.reason is Reason.STORE_FAILED


def test_an_unreadable_path_is_reported(store: LocalStore) -> None:
    store.put("folder/x", b"")
    with pytest.raises(TidemillError) as caught:
        store.get("folder")
    assert caught.value.reason is Reason.STORE_FAILED
    with pytest.raises(TidemillError):
        store.delete("folder")


def test_a_store_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TidemillError) as caught:
        open_store((tmp_path / "file" / "store").as_uri())
    assert caught.value.reason is Reason.STORE_FAILED


def test_a_folder_goes_with_all_that_is_in_it(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    for key in ("jobs/a/1/input/x", "jobs/a/1/output/y", "jobs/a/12/input/x"):
        store.put(key, b"data")
    (store.root / "jobs/a/1/output/.z.parquet.0123").touch()
    (store.root / "jobs/a/1/link").symlink_to(outside)
    assert store.remove_folder("jobs/a/1") == 3
    assert store.remove_folder("jobs/a/1") == 0
    assert not (store.root / "jobs/a/1").exists()
    assert store.exists("jobs/a/12/input/x")
    assert (outside / "kept").exists()


def test_a_folder_that_is_a_link_is_not_followed(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (store.root / "jobs").mkdir()
    (store.root / "jobs/a").symlink_to(outside)
    with pytest.raises(TidemillError, match="symbolic link"):
        store.remove_folder("jobs/a")
    with pytest.raises(TidemillError, match="symbolic link"):
        store.old_files("jobs/a", 0)
    assert (outside / "kept").exists()


def test_old_files_are_told_by_the_clock_of_the_store(store: LocalStore) -> None:
    for name in ("old", "young", "sub/old"):
        store.put(f"jobs/a/{name}", b"data")
    unfinished = store.root / "jobs/a/.x.parquet.0123"
    unfinished.touch()
    now = store.path("jobs/a/young").stat().st_mtime
    for path in (store.path("jobs/a/old"), store.path("jobs/a/sub/old"), unfinished):
        os.utime(path, (now - 7200, now - 7200))
    assert store.old_files("jobs/a", 3600) == ["jobs/a/.x.parquet.0123", "jobs/a/old", "jobs/a/sub/old"]
    assert store.old_files("jobs/none", 3600) == []
    assert store.remove_files("jobs/a", [*store.old_files("jobs/a", 3600), "jobs/a/gone"]) == 3
    assert [path.name for path in sorted((store.root / "jobs/a").rglob("*")) if path.is_file()] == ["young"]


@pytest.mark.parametrize("name", ["jobs/b/x", "jobs/a/../b/x", "/jobs/a/x", "jobs/ab", "jobs/a/link/x"])
def test_files_outside_of_the_folder_are_not_removed(store: LocalStore, name: str) -> None:
    store.put("jobs/b/x", b"data")
    store.put("jobs/a/y", b"data")
    (store.root / "jobs/a/link").symlink_to(store.root / "jobs/b")
    with pytest.raises(TidemillError, match="does not lie below"):
        store.remove_files("jobs/a", [name])
    assert store.exists("jobs/b/x")


@pytest.mark.parametrize("gone", ["root", "mount"])
def test_a_store_that_is_away_has_lost_nothing(store: LocalStore, tmp_path: Path, gone: str) -> None:
    store.put("a", b"data")
    store.root.rename(tmp_path / "aside")
    if gone == "mount":
        store.root.mkdir()
    for call in (
        lambda: store.get("a", sha256(b"data")),
        lambda: store.verify("a", sha256(b"data")),
        lambda: store.put("b", b"data"),
        store.check,
        store.probe,
    ):
        with pytest.raises(TidemillError, match="the object store is away") as caught:
            call()
        assert caught.value.reason is Reason.STORE_FAILED
    if gone == "mount":
        assert list(store.root.iterdir()) == [], "nothing is written below the mount point"
        store.root.rmdir()
    assert not store.root.exists()
    (tmp_path / "aside").rename(store.root)
    store.probe()
    assert store.get("a", sha256(b"data")) == b"data"


def test_a_probe_leaves_nothing(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.probe()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TidemillError, match="No space left") as caught:
        store.probe()
    assert caught.value.reason is Reason.STORE_FAILED
    assert [path.name for path in store.root.iterdir()] == [MARKER]

"""What every object store does, on a folder and on a real S3 server."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.s3_server import S3Server
from tidemill import segments
from tidemill.digests import sha256
from tidemill.errors import Reason, TidemillError
from tidemill.segments import InputRow
from tidemill.store import MARKER, ObjectStore, attach_store, open_store


@dataclass(frozen=True)
class Place:
    """A store's URI, and a way around it to its files."""

    uri: str
    files: Any
    base: str

    def write(self, name: str, data: bytes) -> None:
        with self.files.open_output_stream(f"{self.base}/{name}") as stream:
            stream.write(data)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    from pyarrow import fs

    if request.param == "folder":
        local: Any = fs
        return Place((tmp_path / "new" / "store").as_uri(), local.LocalFileSystem(), str(tmp_path / "new" / "store"))
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    prefix = f"tests/{secrets.token_hex(8)}"
    return Place(server.uri(prefix), server.files(), f"tidemill/{prefix}")


@pytest.fixture
def store(place: Place) -> ObjectStore:
    return open_store(place.uri)


def test_put_then_get(store: ObjectStore) -> None:
    stored = store.put("jobs/a/b.bin", b"data")
    assert (stored.key, stored.sha256, stored.size_bytes) == ("jobs/a/b.bin", sha256(b"data"), 4)
    assert store.get("jobs/a/b.bin", stored.sha256) == b"data"
    assert store.exists("jobs/a/b.bin")
    assert not store.exists("jobs/a")
    assert list(store.keys("jobs/a")) == ["jobs/a/b.bin"]
    assert list(store.keys("jobs")) == list(store.keys("jobs/none")) == []
    with store.open_input("jobs/a/b.bin") as file:
        file.seek(2)
        assert file.read() == b"ta"
    store.delete("jobs/a/b.bin")
    store.delete("jobs/a/b.bin")
    assert not store.exists("jobs/a/b.bin")


def test_a_file_is_replaced_as_a_whole(store: ObjectStore) -> None:
    large = secrets.token_bytes(1 << 20) * 12
    store.put("a", large)
    store.verify("a", sha256(large))
    store.put("a", b"")
    assert store.get("a", sha256(b"")) == b""


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".hidden", "a\0b", "a/", "a b", "a%2fb"])
def test_keys_cannot_leave_the_store(store: ObjectStore, key: str) -> None:
    for call in (
        lambda: store.put(key, b""),
        lambda: store.get(key),
        lambda: store.uri(key),
        lambda: store.exists(key),
    ):
        with pytest.raises(TidemillError) as caught:
            call()
        assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_what_is_missing_or_changed_says_what_it_should_be(store: ObjectStore, place: Place) -> None:
    store.put("a", b"data")
    store.verify("a", sha256(b"data"))
    place.write("a", b"date")
    for key, words in (("a", "changed"), ("b", "missing")):
        for read in (store.get, store.verify):
            with pytest.raises(TidemillError, match=f"{words}.*{sha256(b'data').hex()}") as caught:
                read(key, sha256(b"data"))
            assert caught.value.reason is Reason.DATA_CORRUPT
            assert caught.value.metadata == {"key": key, "expected": sha256(b"data").hex()}


def test_segments_are_read_in_parts(store: ObjectStore, place: Place) -> None:
    rows = [InputRow(i, f"r{i}", "prompt", f"request {i}".encode(), sha256(str(i).encode())) for i in range(3000)]
    stored = segments.write_segment(store, "in.parquet", segments.input_table(rows))
    groups = list(segments.read_batches(store, "in.parquet", sha256=stored.sha256, columns=["row_index"]))
    assert [len(group) for group in groups] == [1024, 1024, 952]
    assert [row.row_index for row in segments.input_rows(segments.read_rows(store, "in.parquet", [5, 2000]))] == [
        5,
        2000,
    ]
    place.write("in.parquet", store.get("in.parquet")[:-9])
    for key in ("in.parquet", "none.parquet"):
        with pytest.raises(TidemillError) as caught:
            segments.read_rows(store, key, [1])
        assert caught.value.reason is Reason.DATA_CORRUPT


def test_a_folder_goes_with_all_that_is_in_it(store: ObjectStore, place: Place) -> None:
    for key in ("jobs/a/1/input/x", "jobs/a/1/output/y", "jobs/a/12/input/x"):
        store.put(key, b"data")
    place.write("jobs/a/1/output/.z.parquet.0123", b"")
    assert store.remove_folder("jobs/a/1") == 3
    assert store.remove_folder("jobs/a/1") == 0
    assert store.old_files("jobs/a/1", 0) == []
    assert store.exists("jobs/a/12/input/x")


def test_old_files_are_told_by_the_clock_of_the_store(store: ObjectStore, place: Place) -> None:
    for name in ("one", "sub/two"):
        store.put(f"jobs/a/{name}", b"data")
    place.write("jobs/a/.x.parquet.0123", b"")
    everything = ["jobs/a/.x.parquet.0123", "jobs/a/one", "jobs/a/sub/two"]
    # A clock may have whole seconds.
    assert store.old_files("jobs/a", -2) == everything
    assert store.old_files("jobs/a", 3600) == store.old_files("jobs/none", 0) == []
    assert store.remove_files("jobs/a", [*everything[1:], "jobs/a/gone"]) == 2
    assert store.old_files("jobs/a", -2) == everything[:1]


@pytest.mark.parametrize("name", ["jobs/b/x", "jobs/a/../b/x", "/jobs/a/x", "jobs/ab"])
def test_files_outside_of_the_folder_are_not_removed(store: ObjectStore, name: str) -> None:
    store.put("jobs/b/x", b"data")
    store.put("jobs/a/y", b"data")
    with pytest.raises(TidemillError, match="does not lie below"):
        store.remove_files("jobs/a", [name])
    assert store.exists("jobs/b/x")


def test_attaching_makes_nothing(place: Place) -> None:
    store = attach_store(place.uri)
    with pytest.raises(TidemillError, match=MARKER) as caught:
        store.check()
    assert caught.value.reason is Reason.STORE_FAILED
    assert caught.value.retry_after
    # Without its marker nothing is taken for lost.
    with pytest.raises(TidemillError, match="the object store is away"):
        store.get("a")
    open_store(place.uri).put("a", b"data")
    assert store.get("a") == b"data"


def test_a_store_is_made_once(store: ObjectStore, place: Place) -> None:
    store.put("a", b"data")
    open_store(place.uri).check()
    assert store.get("a") == b"data"


def test_a_probe_leaves_nothing(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    before = store.old_files("a", -2)
    store.probe()
    assert store.old_files("a", -2) == before


def test_a_uri_names_the_key(store: ObjectStore, place: Place) -> None:
    assert store.uri("a/b") == f"{place.uri.partition('?')[0]}/a/b"

"""Custom ids of stored rows: sidecars and the Bloom filter in front of them."""

import secrets
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway import custom_ids
from services.gateway.custom_ids import BloomFilter, CustomIdIndex, sidecar_bytes, sidecar_has, sidecar_key
from tidemill.errors import TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.store import ObjectStore, open_store

hashes = st.binary(min_size=16, max_size=16)


@given(known=st.lists(hashes, unique=True), asked=st.lists(hashes, unique=True))
def test_sidecars_answer_like_a_set(known: list[bytes], asked: list[bytes]) -> None:
    sidecar = sidecar_bytes(known)
    assert all(sidecar_has(sidecar, item) for item in known)
    assert [sidecar_has(sidecar, item) for item in asked] == [item in set(known) for item in asked]


@given(known=st.lists(hashes, min_size=1, unique=True))
def test_a_filter_never_misses(known: list[bytes]) -> None:
    found = BloomFilter(1024)
    found.add(b"".join(known))
    assert found.hits(b"".join(known)).all()


def test_a_full_filter_rarely_claims_too_much() -> None:
    full = BloomFilter(1 << 14)
    full.add(secrets.token_bytes(16 << 14))
    false_hits = full.hits(secrets.token_bytes(16 * 100_000)).sum()
    assert false_hits < 50


def stored_segment(store: ObjectStore, number: int, ids: list[bytes]) -> records_pb2.SegmentRef:
    key = f"jobs/t/j/input/{number:012d}-1.parquet"
    store.put(sidecar_key(key), sidecar_bytes(ids))
    return records_pb2.SegmentRef(key=key, start=number, count=len(ids))


@settings(deadline=None)
@given(
    batches=st.lists(st.sets(hashes, min_size=1, max_size=20), max_size=6),
    asked=st.sets(hashes),
    split=st.integers(0, 6),
)
def test_the_index_answers_like_a_set(
    tmp_path_factory: pytest.TempPathFactory, batches: list[set[bytes]], asked: set[bytes], split: int
) -> None:
    store = open_store(tmp_path_factory.mktemp("ids").as_uri())
    segments = [stored_segment(store, number, sorted(batch)) for number, batch in enumerate(batches)]
    index = CustomIdIndex(store, segments[:split])
    for segment, batch in zip(segments[split:], batches[split:], strict=True):
        index.add_segment(segment, b"".join(batch))
    known = set[bytes]().union(*batches)
    wanted = sorted(asked | known)
    assert index.stored(wanted) == known


def test_filters_grow_with_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_ids, "_FIRST_CAPACITY", 64)
    store = open_store(tmp_path.as_uri())
    index = CustomIdIndex(store, [])
    ids = [secrets.token_bytes(16) for _ in range(1000)]
    index.add_segment(stored_segment(store, 0, ids), b"".join(ids))
    assert index.stored(ids) == set(ids)
    assert index.stored([secrets.token_bytes(16) for _ in range(1000)]) == set()


def test_a_missing_sidecar_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    segment = stored_segment(store, 0, [secrets.token_bytes(16)])
    store.delete(sidecar_key(segment.key))
    index = CustomIdIndex(store, [segment])
    for _ in range(2):
        with pytest.raises(TidemillError, match="DATA_CORRUPT"):
            index.stored([secrets.token_bytes(16)])

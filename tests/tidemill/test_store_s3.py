"""What is special to an object store on S3: its URI, its credentials, and a server that is away, silent or refuses."""

import time

import pytest

from tests.s3_server import OWNER, READER, S3Server, credentials
from tidemill.errors import Reason, TidemillError
from tidemill.store import ObjectStore, attach_store, open_store, s3_address
from tidemill.store.s3_address import parse_s3


@pytest.fixture(autouse=True)
def owner(monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, OWNER)


def become(monkeypatch: pytest.MonkeyPatch, who: tuple[str, str]) -> None:
    for name, value in credentials(who).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(s3: S3Server) -> ObjectStore:
    store = open_store(s3.uri("store"))
    store.put("a", b"data")
    return store


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://key:secret@bucket/x", "AWS_ACCESS_KEY_ID"),  # pragma: allowlist secret
        ("s3:///x", "not a bucket's name"),
        ("s3://UPPER/x", "not a bucket's name"),
        ("s3://bucket/../x", "prefix may have"),
        ("s3://bucket/a//b", "prefix may have"),
        ("s3://bucket/a%2fb", "prefix may have"),
        ("s3://bucket/x#y", "prefix may have"),
        ("s3://bucket/x?secret=y", "secret is unknown"),
        ("s3://bucket/x?endpoint=minio:9000", "http:// or https://"),
    ],
)
def test_a_wrong_uri_says_why(uri: str, words: str) -> None:
    with pytest.raises(TidemillError, match=words) as caught:
        attach_store(uri)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert "key:secret" not in str(caught.value)


def test_what_the_uri_leaves_open_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    address = parse_s3("s3://bucket/a/b/")
    assert (address.endpoint, address.region) == ("http://127.0.0.1:9000", "eu-central-1")
    assert (address.base, address.uri) == ("bucket/a/b", "s3://bucket/a/b")
    assert parse_s3("s3://bucket?endpoint=https://other&region=x").endpoint == "https://other"


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_without_credentials_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(TidemillError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        attach_store("s3://bucket/x?endpoint=http://127.0.0.1:1")


def test_refused_credentials_are_named(s3: S3Server, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, READER)
    reader = attach_store(s3.uri("store"))
    assert reader.get("a") == b"data"
    become(monkeypatch, (OWNER[0], "wrong"))
    wrong = attach_store(s3.uri("store"))
    for call in (lambda: reader.put("b", b"x"), lambda: wrong.get("a"), lambda: wrong.put("a", b"x"), wrong.check):
        with pytest.raises(TidemillError, match="refuses the credentials in AWS_ACCESS_KEY_ID") as caught:
            call()
        assert caught.value.reason is Reason.STORE_FAILED
        assert "wrong" not in str(caught.value)
        assert "another-secret" not in str(caught.value)
    assert store.get("a") == b"data"


def test_a_bucket_that_is_not_there_is_named(s3: S3Server) -> None:
    with pytest.raises(TidemillError, match="nowhere") as caught:
        open_store(s3.uri().replace("tidemill/", "nowhere/x")).put("a", b"x")
    assert caught.value.reason is Reason.STORE_FAILED


def test_a_silent_server_holds_nobody_for_long(
    s3: S3Server, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_address, "_SILENT_SECONDS", 1.0)
    s3_address.forget_filesystems()
    store = attach_store(s3.uri("store"))
    s3.freeze()
    try:
        for call in (lambda: store.get("a"), lambda: store.put("b", b"x")):
            began = time.monotonic()
            with pytest.raises(TidemillError, match="does not answer") as caught:
                call()
            assert caught.value.reason is Reason.STORE_FAILED
            assert caught.value.retry_after
            assert time.monotonic() - began < 30
    finally:
        s3.thaw()
        s3_address.forget_filesystems()
    assert store.get("a") == b"data"


def test_a_server_that_is_away_has_lost_nothing(s3: S3Server, store: ObjectStore) -> None:
    s3.kill()
    try:
        for call in (lambda: store.get("a"), lambda: store.put("b", b"x")):
            with pytest.raises(TidemillError, match="does not answer") as caught:
                call()
            assert caught.value.reason is Reason.STORE_FAILED
    finally:
        s3.start()
    assert store.get("a") == b"data"
    store.probe()

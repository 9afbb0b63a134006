"""The ledger in Redis: conformance, what it demands of Redis, lost replies, damage, no memory, and the term."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.scheduler.ledger import Ledger, RedisLedger
from services.scheduler.ledger.base import replay
from services.scheduler.ledger.redis_address import RedisAddress, parse
from tests.scheduler.keeping_conformance import KeepingConformance, sealed
from tests.scheduler.ledger_conformance import LedgerConformance, events
from tests.scheduler.redis_server import RedisServer
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason


def fresh(server: RedisServer) -> RedisLedger:
    """A ledger with a name that nobody used."""
    return RedisLedger(parse(server.url(uuid.uuid4().hex)))


@pytest.fixture
def ledger(redis_server: RedisServer) -> Iterator[RedisLedger]:
    ledger = fresh(redis_server)
    yield ledger
    ledger.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that the test may break."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


class TestRedisLedger(LedgerConformance):
    @pytest.fixture
    def ledger(self, redis_server: RedisServer) -> Ledger:
        return fresh(redis_server)

    def reopened(self, ledger: Ledger) -> Ledger:
        assert isinstance(ledger, RedisLedger)
        ledger.close()
        return RedisLedger(ledger.address)


class TestRedisKeeping(KeepingConformance):
    @pytest.fixture
    def ledger(self, redis_server: RedisServer) -> Ledger:
        return fresh(redis_server)

    def reopened(self, ledger: Ledger) -> Ledger:
        assert isinstance(ledger, RedisLedger)
        ledger.close()
        return RedisLedger(ledger.address)


# What it demands of Redis.


@pytest.mark.parametrize(
    ("setting", "value", "command"),
    [
        ("appendonly", "no", "CONFIG SET appendonly yes"),
        ("appendfsync", "everysec", "CONFIG SET appendfsync always"),
        ("maxmemory_policy", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
        ("maxmemory", "20mb", "CONFIG SET maxmemory 4294967296"),
    ],
)
def test_an_unsafe_redis_is_refused_with_the_remedy(tmp_path: Path, setting: str, value: str, command: str):
    server = RedisServer(tmp_path / "redis", **{setting: value})
    server.start()
    try:
        error = refusal(fresh(server).open, "me")
        assert error.reason is Reason.LEDGER_UNSAFE
        assert f"`redis-cli {command}`" in error.message
        with server.client() as client:
            client.config_set(*command.removeprefix("CONFIG SET ").split())
        assert fresh(server).open("me").epoch == 1
    finally:
        server.kill()


def test_settings_that_cannot_be_read_have_to_be_vouched_for(own_server: RedisServer):
    with own_server.client() as client:
        client.execute_command("ACL", "SETUSER", "tm", "on", ">s3cret", "~*", "+@all", "-config")
    address = parse(f"redis://tm@127.0.0.1:{own_server.port}", "s3cret")
    error = refusal(RedisLedger(address).open, "me")
    assert error.reason is Reason.LEDGER_UNSAFE
    assert "TIDEMILL_SCHEDULER_LEDGER_VOUCHED=true" in error.message
    assert "+config|get" in error.message
    assert "s3cret" not in f"{error} {error.metadata} {address!r} {address}"
    assert RedisLedger(address, vouched=True).open("me").epoch == 1


def test_a_wrong_password_is_refused_and_never_repeated(own_server: RedisServer):
    with own_server.client() as client:
        client.execute_command("ACL", "SETUSER", "tm", "on", ">s3cret", "~*", "+@all")
    error = refusal(RedisLedger(parse(f"redis://tm@127.0.0.1:{own_server.port}", "wr0ng")).open, "me")
    assert error.reason is Reason.LEDGER_UNSAFE
    assert "TIDEMILL_SCHEDULER_LEDGER_PASSWORD" in error.message
    assert "wr0ng" not in str(error)


def test_a_user_without_the_rights_is_told_which(own_server: RedisServer):
    with own_server.client() as client:
        client.execute_command("ACL", "SETUSER", "tm", "on", ">s3cret", "~*", "+@all", "-@scripting")
    error = refusal(RedisLedger(parse(f"redis://tm@127.0.0.1:{own_server.port}", "s3cret")).open, "me")
    assert error.reason is Reason.LEDGER_UNSAFE
    assert "+@scripting" in error.message


# Crashes, lost replies, no memory.


def test_what_was_acknowledged_survives_the_death_of_redis(own_server: RedisServer):
    ledger = fresh(own_server)
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, events(1, 3))
    own_server.restart()
    assert list(replay(ledger)) == events(1, 3)
    assert ledger.append(epoch, 3, events(4)) == 4
    ledger.close()


def test_a_redis_that_is_away_is_named_and_comes_back(own_server: RedisServer):
    ledger = fresh(own_server)
    epoch = ledger.open("me").epoch
    own_server.kill()
    assert refusal(ledger.append, epoch, 0, events(1)).reason is Reason.LEDGER_WRITE_FAILED
    error = refusal(ledger.read, 0, 10)
    assert error.retry_after
    assert str(own_server.port) in error.message
    assert refusal(ledger.term).reason is Reason.UNAVAILABLE
    own_server.start()
    assert ledger.read(0, 10) == []
    assert ledger.append(epoch, 0, events(1)) == 1
    ledger.close()


class LostReplies:
    """Runs the script, or does not, and loses the reply either way."""

    def __init__(self, ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Any = ledger.__dict__["_calls"]
        self.monkeypatch = monkeypatch

    def lose_next(self, *, stored: bool) -> None:
        run = self.calls.script

        def script(text: str, *arguments: Any, **options: Any) -> Any:
            self.monkeypatch.setattr(self.calls, "script", run)
            if stored:
                run(text, *arguments, **options)
            return self.calls._guarded(_broken)

        self.monkeypatch.setattr(self.calls, "script", script)


def _broken() -> None:
    raise TimeoutError("no reply")


def test_a_lost_reply_never_doubles_an_event(ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch):
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, events(1))
    LostReplies(ledger, monkeypatch).lose_next(stored=True)
    assert ledger.append(epoch, 1, events(2, 2)) == 3
    assert list(replay(ledger)) == events(1, 3)
    LostReplies(ledger, monkeypatch).lose_next(stored=False)
    assert refusal(ledger.append, epoch, 3, events(4)).reason is Reason.LEDGER_WRITE_FAILED
    assert ledger.append(epoch, 3, events(4)) == 4
    assert list(replay(ledger)) == events(1, 4)


def test_an_append_that_arrives_late_is_barred(own_server: RedisServer, monkeypatch: pytest.MonkeyPatch):
    """Redis stands still with the append in its socket; by the time it goes on, the writer has given that up."""
    monkeypatch.setattr("services.scheduler.ledger.redis.CALL_SECONDS", 0.2)
    ledger = fresh(own_server)
    epoch = ledger.open("me").epoch
    own_server.freeze()
    assert refusal(ledger.append, epoch, 0, events(1)).reason is Reason.LEDGER_WRITE_FAILED
    own_server.thaw()
    found = list(replay(ledger))
    assert found in ([], events(1))
    assert ledger.append(epoch, len(found), events(len(found) + 1)) == len(found) + 1
    assert list(replay(ledger)) == events(1, len(found) + 1)
    ledger.close()


def test_an_attempt_that_was_settled_is_refused_for_ever(ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch):
    epoch = ledger.open("me").epoch
    LostReplies(ledger, monkeypatch).lose_next(stored=False)
    refusal(ledger.append, epoch, 0, events(1))
    ledger.__dict__["_attempt"] -= 1
    assert "late" in refusal(ledger.append, epoch, 0, events(1)).message
    assert ledger.read(0, 10) == []


def test_a_full_redis_stores_nothing_and_goes_on_when_there_is_room(own_server: RedisServer):
    ledger = fresh(own_server)
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, events(1))
    with own_server.client() as client:
        client.config_set("maxmemory", 1_000_000)
        error = refusal(ledger.append, epoch, 1, events(2, 2))
        assert error.reason is Reason.LEDGER_FULL
        assert "maxmemory" in error.message
        assert error.retry_after
        # It leads on, and shows what it has.
        ledger.renew(epoch)
        assert list(replay(ledger)) == events(1)
        client.config_set("maxmemory", 0)
    assert ledger.append(epoch, 1, events(2, 2)) == 3
    ledger.close()


# Damage.


def change(server: RedisServer, ledger: RedisLedger, index: int, frame: bytes) -> None:
    with server.client() as client:
        client.lset(f"{{tidemill:{ledger.address.name}}}:events", index, frame)


def written(ledger: RedisLedger, count: int) -> None:
    ledger.append(ledger.open("me").epoch, 0, events(1, count))


def test_a_damaged_last_record_is_set_aside_and_reported(ledger: RedisLedger, redis_server: RedisServer):
    written(ledger, 3)
    change(redis_server, ledger, 2, b"half of a rec")
    opened = ledger.open("me")
    assert "record 3, the last one" in opened.repaired
    assert opened.last_sequence == 2
    assert list(replay(ledger)) == events(1, 2)
    assert ledger.append(opened.epoch, 2, events(3)) == 3
    with redis_server.client() as client:
        assert client.lrange(f"{{tidemill:{ledger.address.name}}}:damaged", 0, -1) == [b"half of a rec"]
    assert ledger.open("me").repaired == ""


def test_a_damaged_last_record_leaves_the_completion_index(ledger: RedisLedger, redis_server: RedisServer):
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, [sealed(1), sealed(2)])
    change(redis_server, ledger, 1, b"")
    assert ledger.open("me").last_sequence == 1
    assert [entry.sequence for entry in ledger.list_completions("acme", 0, 10)] == [1]


def test_a_snapshot_stands_for_a_damaged_last_record(ledger: RedisLedger, redis_server: RedisServer):
    written(ledger, 3)
    ledger.save_snapshot(1, 3, b"state")
    change(redis_server, ledger, 2, b"")
    opened = ledger.open("me")
    assert (opened.last_sequence, bool(opened.repaired)) == (3, True)
    assert ledger.append(opened.epoch, 3, events(4)) == 4
    assert ledger.read(3, 10) == events(4)


@pytest.mark.parametrize("frame", [b"", b"\0" * 40])
def test_damage_inside_is_refused_by_record(ledger: RedisLedger, redis_server: RedisServer, frame: bytes):
    written(ledger, 4)
    change(redis_server, ledger, 1, frame)
    ledger.open("me")
    error = refusal(lambda: list(replay(ledger)))
    assert error.reason is Reason.LEDGER_CORRUPT
    assert "record 2 is damaged" in error.message


def test_a_record_in_the_wrong_place_is_refused(ledger: RedisLedger, redis_server: RedisServer):
    written(ledger, 4)
    with redis_server.client() as client:
        key = f"{{tidemill:{ledger.address.name}}}:events"
        client.lrem(key, 1, client.lindex(key, 1))
    assert "it is record 4" in ledger.open("me").repaired
    assert "record 2 is damaged (it is record 3)" in refusal(lambda: list(replay(ledger))).message


def test_another_format_is_refused(ledger: RedisLedger, redis_server: RedisServer):
    written(ledger, 1)
    with redis_server.client() as client:
        client.hset(f"{{tidemill:{ledger.address.name}}}:meta", "format", "99")
    error = refusal(ledger.open, "me")
    assert error.reason is Reason.LEDGER_CORRUPT
    assert "format is 99" in error.message


def test_events_without_facts_are_refused(ledger: RedisLedger, redis_server: RedisServer):
    written(ledger, 1)
    with redis_server.client() as client:
        client.delete(f"{{tidemill:{ledger.address.name}}}:meta")
    assert refusal(ledger.open, "me").reason is Reason.LEDGER_CORRUPT


def test_an_emptied_redis_takes_no_more_events(ledger: RedisLedger, redis_server: RedisServer):
    epoch = ledger.open("me").epoch
    with redis_server.client() as client:
        client.delete(f"{{tidemill:{ledger.address.name}}}:meta")
    error = refusal(ledger.append, epoch, 0, events(1))
    assert error.reason is Reason.LEDGER_FENCED
    assert "emptied" in error.message


# The term.


def test_a_claim_holds_only_while_nobody_was_faster(ledger: RedisLedger):
    assert ledger.term().vacant
    ledger.claim(ledger.term(), "127.0.0.1:1")
    epoch = ledger.open("me").epoch
    seen = ledger.term()
    assert (seen.epoch, seen.beat, seen.address, seen.vacant) == (epoch, 0, "127.0.0.1:1", False)
    other = RedisLedger(ledger.address)
    other.claim(seen, "127.0.0.1:2")
    ledger.renew(epoch)
    assert refusal(other.open, "other").reason is Reason.NOT_LEADER
    ledger.append(epoch, 0, events(1))
    other.claim(ledger.term(), "127.0.0.1:2")
    assert other.open("other").last_sequence == 1
    for call in (ledger.renew, ledger.release):
        assert refusal(call, epoch).reason is Reason.LEDGER_FENCED
    assert refusal(ledger.append, epoch, 1, events(2)).reason is Reason.LEDGER_FENCED
    assert not other.term().vacant
    other.release(epoch + 1)
    assert other.term().vacant
    other.close()


# The address.


def test_the_address_says_everything():
    address = parse("rediss://tm%40x@redis.example:6390/3?name=prod&ca=/etc/ca.pem", "pw")
    assert address == RedisAddress("redis.example", 6390, 3, "prod", "tm@x", "pw", True, "/etc/ca.pem")
    assert parse("redis://localhost") == RedisAddress("localhost")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://", "must be"),
        ("http://host", "must be"),
        ("redis://user:s3cret@host", "TIDEMILL_SCHEDULER_LEDGER_PASSWORD"),  # pragma: allowlist secret
        ("redis://host?nam=x", "unknown parameters: nam"),
        ("redis://host?name=A b", "name must be"),
        ("redis://host/db", "database must be a number"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, why: str):
    with pytest.raises(ValueError, match=why) as caught:
        parse(url)
    assert "s3cret" not in str(caught.value)


# TLS.


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=tidemill-test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*new, *subject], check=True, capture_output=True)
    return certificate, key


def test_tls_is_spoken_and_the_certificate_checked(tmp_path: Path, certificate: tuple[Path, Path]):
    own, key = map(str, certificate)
    server = RedisServer(tmp_path / "redis", tls_cert_file=own, tls_key_file=key, tls_auth_clients="no")
    server.start()
    with server.client() as client:
        client.config_set("port", 0)
        client.config_set("tls-port", server.port)
        try:
            url = f"rediss://127.0.0.1:{server.port}"
            ledger = RedisLedger(parse(f"{url}?ca={own}"))
            assert ledger.append(ledger.open("me").epoch, 0, events(1)) == 1
            ledger.close()
            error = refusal(RedisLedger(parse(url)).open, "me")
            assert error.reason is Reason.UNAVAILABLE
            assert "CERTIFICATE_VERIFY_FAILED" in error.message
        finally:
            server.kill()

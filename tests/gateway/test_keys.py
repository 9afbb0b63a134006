"""API keys in their file."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tidemill.errors import TidemillError
from tidemill.key_use import note_uses, read_uses, use_file
from tidemill.keys import Scope, create_key, hash_key, key_id, list_keys, revoke_key, rotate_key

PEPPER = "a pepper of some length"


def test_a_key_is_stored_as_a_hash_only(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "keys.json"
    key = create_key(path, PEPPER, "acme")
    assert re.fullmatch(r"tm_live_[a-z2-7]{16}_[a-z2-7]{32}", key)
    (record,) = list_keys(path)
    assert (record.id, record.tenant, record.hash) == (key_id(key), "acme", hash_key(PEPPER, key))
    assert key.rpartition("_")[2] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_is_no_admin_key_unless_it_is_made_one(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, PEPPER, "a")
    create_key(path, PEPPER, "b", admin=True)
    assert [record.admin for record in list_keys(path)] == [False, True]


def test_keys_of_an_older_file_keep_what_they_could_do(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    flags: list[dict[str, bool]] = [{}, {"admin": False}, {"admin": True}]
    old = [{"id": str(i), "tenant": "a", "hash": "0" * 64, "create_time": "", **flags[i]} for i in range(3)]
    path.write_text(json.dumps({"version": 1, "keys": old}))
    common, also_common, admin = list_keys(path)
    assert common.scopes == also_common.scopes == (Scope.SUBMIT, Scope.READ, Scope.FEED)
    assert set(admin.scopes) == set(Scope)
    # What a build of that time cannot read is not written in its version.
    create_key(path, PEPPER, "b")
    assert json.loads(path.read_text())["version"] == 2
    assert list_keys(path)[:3] == [common, also_common, admin]


def test_a_key_has_the_scopes_and_the_lifetime_that_it_was_made_with(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, PEPPER, "a", scopes=[Scope.FEED, Scope.READ], lifetime=timedelta(hours=1))
    (record,) = list_keys(path)
    assert record.scopes == (Scope.READ, Scope.FEED)
    now = datetime.now(UTC)
    assert record.hashes(now) == (record.hash,)
    assert not record.hashes(now + timedelta(hours=1))
    assert record.expired(now + timedelta(hours=1))


def test_a_rotated_key_has_two_secrets_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    old = create_key(path, PEPPER, "a", scopes=[Scope.READ])
    new = rotate_key(path, PEPPER, key_id(old) or "", timedelta(hours=1))
    assert key_id(new) == key_id(old)
    (record,) = list_keys(path)
    now = datetime.now(UTC)
    assert set(record.hashes(now)) == {hash_key(PEPPER, old), hash_key(PEPPER, new)}
    assert record.hashes(now + timedelta(hours=1)) == (hash_key(PEPPER, new),)
    assert record.scopes == (Scope.READ,)
    newest = rotate_key(path, PEPPER, record.id, timedelta(hours=1))
    assert set(list_keys(path)[0].hashes(now)) == {hash_key(PEPPER, new), hash_key(PEPPER, newest)}


def test_a_revoked_key_stays_revoked(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    public_id = key_id(create_key(path, PEPPER, "a")) or ""
    create_key(path, PEPPER, "b")
    revoked = revoke_key(path, public_id)
    assert revoked.revoke_time
    assert revoke_key(path, public_id) == revoked
    assert [bool(record.hashes(datetime.now(UTC))) for record in list_keys(path)] == [False, True]
    with pytest.raises(TidemillError, match="was revoked"):
        rotate_key(path, PEPPER, public_id, timedelta())


@pytest.mark.parametrize("present", [True, False])
def test_an_unknown_key_is_neither_rotated_nor_revoked_nor_repeated(tmp_path: Path, present: bool) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, PEPPER, "a") if present else "tm_live_" + "a" * 16 + "_" + "b" * 32
    before = path.read_bytes() if present else b""
    for change in (lambda: revoke_key(path, key), lambda: rotate_key(path, PEPPER, key, timedelta())):
        with pytest.raises(TidemillError, match="KEY_NOT_FOUND: ") as caught:
            change()
        assert key not in str(caught.value)
    assert (path.read_bytes() if present else b"") == before


def test_uses_are_merged_and_a_broken_file_costs_only_them(tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.json"
    note_uses(keys_file, {"a": "2026-01-02", "b": "2026-01-02"})
    note_uses(keys_file, {"a": "2026-01-03", "b": "2026-01-01"})
    assert read_uses(keys_file) == {"a": "2026-01-03", "b": "2026-01-02"}
    assert use_file(keys_file).stat().st_mode & 0o777 == 0o600
    for broken in ("{", "[]", '{"a": 1}'):
        use_file(keys_file).write_text(broken)
        assert read_uses(keys_file) == {}
    note_uses(keys_file, {"c": "2026-01-01"})
    assert read_uses(keys_file) == {"c": "2026-01-01"}
    assert not keys_file.exists()


def test_the_pepper_and_every_character_count() -> None:
    key = "tm_live_" + "a" * 16 + "_" + "b" * 32
    assert hash_key(PEPPER, key) != hash_key(PEPPER + "x", key)
    assert hash_key(PEPPER, key) != hash_key(PEPPER, key[:-1] + "c")


def test_concurrent_creations_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda i: create_key(path, PEPPER, f"tenant-{i}"), range(16)))
    assert {record.id for record in list_keys(path)} == {key_id(key) for key in keys}


def test_no_file_means_no_keys(tmp_path: Path) -> None:
    assert list_keys(tmp_path / "keys.json") == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 3, "keys": []}',
        '{"version": 1, "keys": [{"id": 1}]}',
        '{"version": 1, "keys": [{"id": "a", "tenant": "b", "hash": "plain", "create_time": ""}]}',
        '{"version": 1, "keys": [{"id": "a", "tenant": "b", "hash": "'
        + "0" * 64
        + '", "create_time": "", "admin": 1}]}',
        '{"version": 2, "keys": [{"id": "a", "tenant": "b", "hash": "'
        + "0" * 64
        + '", "create_time": "", "scopes": ["all"]}]}',
        '{"version": 2, "keys": [{"id": "a", "tenant": "b", "hash": "'
        + "0" * 64
        + '", "create_time": "", "expire_time": "2026-01-01T00:00:00"}]}',
        "\xff",
    ],
)
def test_other_files_are_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(TidemillError, match="is not a keys file"):
        list_keys(path)
    with pytest.raises(TidemillError, match="is not a keys file"):
        create_key(path, PEPPER, "acme")
    assert path.read_text(encoding="latin-1") == content


@pytest.mark.parametrize(("pepper", "tenant"), [("short", "acme"), (PEPPER, "Acme"), (PEPPER, "")])
def test_bad_pepper_and_tenant(tmp_path: Path, pepper: str, tenant: str) -> None:
    with pytest.raises(TidemillError):
        create_key(tmp_path / "keys.json", pepper, tenant)
    assert not (tmp_path / "keys.json").exists()


@pytest.mark.parametrize("key", ["", "tm_live_", "tm_test_" + "a" * 16 + "_" + "b" * 32, "tm_live_a_b", "x" * 10_000])
def test_what_does_not_look_like_a_key(key: str) -> None:
    assert key_id(key) is None


def test_the_file_is_versioned_json(tmp_path: Path) -> None:
    create_key(tmp_path / "keys.json", PEPPER, "acme")
    fields = json.loads((tmp_path / "keys.json").read_text())
    assert fields["version"] == 2
    assert {"id", "tenant", "hash", "create_time", "scopes", "expire_time", "revoke_time"} <= set(fields["keys"][0])

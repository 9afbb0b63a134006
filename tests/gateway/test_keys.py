"""API keys in their file."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidemill.errors import TidemillError
from tidemill.keys import create_key, hash_key, key_id, list_keys

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


def test_keys_of_a_file_without_the_admin_flag_are_no_admin_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, PEPPER, "a", admin=True)
    fields = json.loads(path.read_text())
    del fields["keys"][0]["admin"]
    path.write_text(json.dumps(fields))
    assert [record.admin for record in list_keys(path)] == [False]


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
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [{"id": 1}]}',
        '{"version": 1, "keys": [{"id": "a", "tenant": "b", "hash": "plain", "create_time": ""}]}',
        '{"version": 1, "keys": [{"id": "a", "tenant": "b", "hash": "'
        + "0" * 64
        + '", "create_time": "", "admin": 1}]}',
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
    assert fields["version"] == 1
    assert set(fields["keys"][0]) == {"id", "tenant", "hash", "create_time", "admin"}

"""Which files clients may have read or written."""

import os
from pathlib import Path

import pytest

from services.gateway.places import Roots, check_roots, split_uri
from tidemill.errors import Reason, TidemillError

MOST = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with a file, and a file and folder beside it."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "rows.jsonl").write_text("rows")
    (tmp_path / "secret.jsonl").write_text("secret")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "x.jsonl").write_text("secret")
    return root


def roots(folder: Path) -> Roots:
    return Roots(f"s3://bucket/in, {folder.as_uri()}", "SETTING")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "rows.jsonl",
        "/etc/passwd",
        "file:/etc/passwd",
        "file://host/rows.jsonl",
        "FILE:///etc/passwd",
        "http://127.0.0.1/rows.jsonl",
        "https://example.com/rows.jsonl",
        "ftp://example.com/rows.jsonl",
        "data:text/plain,x",
        "gs://bucket/rows.jsonl",
        "s3:///key",
        "file:///root/../secret.jsonl",
        "file:///root/./rows.jsonl",
        "file:///root//rows.jsonl",
        "file:///root/",
        "file:///root/%2e%2e/secret.jsonl",
        "file:///root/..%2fsecret.jsonl",
        "file:///root/rows.jsonl\0.png",
        "file:///root/rows\n.jsonl",
        "file:///root/rows.jsonl?x=y",
        "file:///root/rows.jsonl#x",
        "file:///root\\..\\secret.jsonl",
        "s3://bucket/in/../secret.jsonl",
        "s3://bucket/in/x.jsonl?endpoint=http://127.0.0.1:1",
        "file:///" + "x" * 1024,
    ],
)
def test_a_uri_that_is_not_plain_is_refused(uri: str) -> None:
    with pytest.raises(TidemillError, match="INVALID_ARGUMENT: uri ") as caught:
        split_uri(uri)
    assert caught.value.violations[0].field == "uri"


@pytest.mark.parametrize(
    "uri", ["{root}2/x.jsonl", "{root}", "file:///etc/passwd", "s3://bucket/other/x", "s3://b2/in/x"]
)
def test_what_lies_outside_is_not_allowed(folder: Path, uri: str) -> None:
    with pytest.raises(TidemillError, match="SETTING") as caught:
        roots(folder).find(uri.format(root=folder.as_uri()), "dev")
    assert caught.value.reason is Reason.URI_NOT_ALLOWED


def test_without_roots_the_setting_is_named(folder: Path) -> None:
    with pytest.raises(TidemillError, match="in SETTING"):
        Roots("", "SETTING").find((folder / "sub" / "rows.jsonl").as_uri(), "dev")


def test_a_root_may_be_for_each_tenant(folder: Path, tmp_path: Path) -> None:
    found = Roots(f"{folder.as_uri()}/{{tenant}}", "SETTING")
    with found.find(f"{folder.as_uri()}/sub/rows.jsonl", "sub").open(tmp_path, MOST) as file:
        assert file.read() == b"rows"
    with pytest.raises(TidemillError, match="SETTING"):
        found.find(f"{folder.as_uri()}/sub/rows.jsonl", "other")


@pytest.mark.parametrize(
    "text", ["/data", "http://x/y", "file:///", "file:///a/../b", "s3://KEY@bucket", "file://host/a"]
)
def test_a_root_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"root|credentials|bucket"):
        check_roots(f"file:///fine,{text}")


@pytest.mark.parametrize("kind", ["file link", "folder link", "root link up"])
def test_links_are_not_followed(folder: Path, tmp_path: Path, kind: str) -> None:
    uri = folder.as_uri()
    if kind == "file link":
        (folder / "x.jsonl").symlink_to(tmp_path / "secret.jsonl")
        place = roots(folder).find(f"{uri}/x.jsonl", "dev")
    elif kind == "folder link":
        (folder / "link").symlink_to(tmp_path / "root2")
        place = roots(folder).find(f"{uri}/link/x.jsonl", "dev")
    else:
        (folder / "link").symlink_to(tmp_path)
        place = roots(folder).find(f"{uri}/link/root2/x.jsonl", "dev")
    for call in (lambda: place.open(tmp_path, MOST), place.existing):
        with pytest.raises(TidemillError, match="symbolic link") as caught:
            call()
        assert caught.value.reason is Reason.INVALID_FILE
    with (tmp_path / "content").open("w+b") as content:
        content.write(b"new")
        content.seek(0)
        if kind == "file link":
            # A link in the way is replaced or refused, and never written through.
            with pytest.raises(TidemillError, match="FILE_EXISTS"):
                place.write(content, overwrite=False)
        else:
            with pytest.raises(TidemillError, match="symbolic link"):
                place.write(content, overwrite=True)
    assert (tmp_path / "secret.jsonl").read_text() == (tmp_path / "root2" / "x.jsonl").read_text() == "secret"


@pytest.mark.parametrize("kind", ["pipe", "folder", "missing", "large"])
def test_what_is_no_file_to_read_is_named(folder: Path, tmp_path: Path, kind: str) -> None:
    path = folder / "it.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(b"x" * 11)
    place = roots(folder).find(path.as_uri(), "dev")
    words = {"pipe": "regular file", "folder": "regular file", "large": "11 bytes; at most 10"}.get(kind, "not exist")
    with pytest.raises(TidemillError, match=words):
        place.open(tmp_path, 10)


def test_a_file_appears_whole_and_replaces_only_when_told(folder: Path, tmp_path: Path) -> None:
    place = roots(folder).find(f"{folder.as_uri()}/new/folder/out.jsonl", "dev")
    assert place.existing() is None

    def write(data: bytes, *, overwrite: bool) -> None:
        with (tmp_path / "content").open("w+b") as content:
            content.write(data)
            content.seek(0)
            place.write(content, overwrite=overwrite)

    write(b"one", overwrite=False)
    found = place.existing()
    assert found
    assert found.size_bytes == 3
    with pytest.raises(TidemillError, match="FILE_EXISTS"):
        write(b"two", overwrite=False)
    write(b"three", overwrite=True)
    target = folder / "new" / "folder"
    assert [path.name for path in target.iterdir()] == ["out.jsonl"]
    assert (target / "out.jsonl").read_bytes() == b"three"

"""`make check` finds dead links, emoji and secrets that somebody planted, and nothing else."""

from pathlib import Path

import pytest

from scripts import check_emoji, check_links, check_secrets
from scripts.tracked import tracked_files
from tests.repo.conftest import Commit

# Put together here, so that this file is not a finding itself.
AWS_KEY = "AKIA" + "Q3EGRIMXKSLQ7Z5J"
TIDEMILL_KEY = "tm_live_" + "abcdefgh234567qr_" + "qwertyuiopasdfghjklzxcvbnm234567"


def test_git_s_ignored_files_are_not_judged(repository: Path, commit: Commit) -> None:
    commit("Start", {".gitignore": "hidden\n", "kept": "", "removed": ""})
    (repository / "removed").unlink()
    for name in ("hidden", "new"):
        (repository / name).touch()
    assert [path.name for path in tracked_files(repository)] == [".gitignore", "kept", "new"]


def test_an_emoji_is_found_in_its_place(repository: Path, commit: Commit, capsys: pytest.CaptureFixture[str]) -> None:
    commit("Start", {"notes.md": "fine: -> │ ─ ≥ é\n", "image.png": ""})
    (repository / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    assert check_emoji.main(repository) == 0
    commit("Cheer", {"notes.md": f"one\ndone {chr(0x1F389)}\n"})
    assert check_emoji.main(repository) == 1
    assert capsys.readouterr().err == "notes.md:2: emoji U+1F389\n"


GOOD_LINKS = """# The title, with `code`

[a](other.md) [b](other.md#second-part) [c](#the-title-with-code) [d](https://example.org/x) [e](folder)
[mail](mailto:a@example.org) ![image](folder/image.png "title") [ref]

`[not a link](nowhere.md)`
```
[neither](nowhere.md)
```
[ref]: other.md
"""


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("[x](missing.md)", "missing.md: no such file"),
        ("[x](other.md#third)", "other.md#third: no such heading"),
        ("[x](#nowhere)", "#nowhere: no such heading"),
        ("[x](https:///path)", "https:///path: not a well-formed address"),
        ("[x](htp://example.org)", "htp://example.org: not a well-formed address"),
        ("[r]: missing.md", "missing.md: no such file"),
    ],
)
def test_a_dead_link_is_found(
    repository: Path, commit: Commit, capsys: pytest.CaptureFixture[str], link: str, why: str
) -> None:
    other = "# Other\n\n## Second part\n\n## Second part\n"
    commit("Start", {"README.md": GOOD_LINKS, "other.md": other, "folder/image.png": ""})
    assert check_links.main(repository) == 0, capsys.readouterr().err
    commit("Break", {"README.md": f"{GOOD_LINKS}\n{link}\n"})
    assert check_links.main(repository) == 1
    assert capsys.readouterr().err == f"README.md:{GOOD_LINKS.count(chr(10)) + 2}: {why}\n"


def test_repeated_headings_are_numbered() -> None:
    assert check_links.anchors_of("# A b\n# A b\n```\n# no\n```\n# [C](x)!\n") == {"a-b", "a-b-1", "c"}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f"key = '{AWS_KEY}'", "AWS Access Key"),
        (f"export TIDEMILL_API_KEY={TIDEMILL_KEY}", "Tidemill key"),
        ("-----BEGIN RSA " + "PRIVATE KEY-----", "Private Key"),
        ("pass" + "word = 'correct-horse-battery'", "Secret Keyword"),
    ],
)
def test_a_secret_is_found_until_it_is_accepted(
    repository: Path, commit: Commit, capsys: pytest.CaptureFixture[str], line: str, kind: str
) -> None:
    commit("Start", {"settings.py": "name = 'tm_live_" + "a" * 16 + "_" + "b" * 32 + "'\n"})
    assert check_secrets.main([], repository) == 0
    commit("Leak", {"settings.py": f"\n{line}\n"})
    assert check_secrets.main([], repository) == 1
    assert f"settings.py:2: {kind}" in capsys.readouterr().err
    assert check_secrets.main(["--accept"], repository) == 0
    assert check_secrets.main([], repository) == 0
    assert line not in (repository / check_secrets.BASELINE).read_text()


def test_an_accepted_secret_does_not_excuse_another(repository: Path, commit: Commit) -> None:
    commit("Leak", {"settings.py": f"key = '{AWS_KEY}'\n"})
    check_secrets.main(["--accept"], repository)
    commit("Leak more", {"settings.py": f"key = '{AWS_KEY[:-1]}K'\n"})
    assert check_secrets.main([], repository) == 1

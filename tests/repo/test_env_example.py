"""`.env.example` has every variable of every settings class, each with a meaning and an example."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from scripts import env_example
from scripts.tracked import ROOT, tracked_files

LINE = re.compile(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
NAME = re.compile(r"\bTIDEMILL_[A-Z][A-Z0-9_]*[A-Z0-9]\b")
# Set by us for processes of ours; nobody else sets them.
INTERNAL = {"TIDEMILL_INFERENCE_OWNER"}


def subclasses(base: type[BaseSettings]) -> set[type[BaseSettings]]:
    found = set(base.__subclasses__())
    return found.union(*map(subclasses, found))


def test_the_file_is_what_the_settings_say() -> None:
    assert env_example.FILE.read_text() == env_example.text()


def test_every_settings_class_of_ours_has_a_section() -> None:
    ours = {
        one
        for one in subclasses(BaseSettings)
        if one.__module__.split(".")[0] in ("tidemill", "services", "dagster_defs")
    }
    assert ours == set(env_example.SECTIONS.values())


def test_every_variable_has_a_meaning_and_an_example() -> None:
    text = env_example.FILE.read_text()
    for name, example in LINE.findall(text):
        assert example, f"{name} has no example"
        assert example not in ("None", "PydanticUndefined"), name
    for settings in env_example.SECTIONS.values():
        for name, field in env_example.variables(settings).items():
            assert field.description, name
            assert re.search(rf"^#?{name}=", text, re.MULTILINE), name


def test_every_variable_that_the_code_names_is_in_the_file() -> None:
    listed = {name for name, _ in LINE.findall(env_example.FILE.read_text())}
    code = [
        path
        for path in tracked_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("tidemill", "services", "dagster_defs")
    ]
    named = {name for path in code for name in NAME.findall(path.read_text())}
    assert named - INTERNAL <= listed


@pytest.mark.parametrize("change", ["#TIDEMILL_GATEWAY_ADDRESS=127.0.0.1:7070", "TIDEMILL_GATEWAY_KEY_PEPPER="])
def test_a_change_by_hand_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    copy = tmp_path / ".env.example"
    copy.write_text(env_example.text().replace(change, "# gone"))
    monkeypatch.setattr(env_example, "FILE", copy)
    monkeypatch.setattr("sys.argv", ["env_example", "--check"])
    assert env_example.main() == 1
    assert "make env" in capsys.readouterr().err

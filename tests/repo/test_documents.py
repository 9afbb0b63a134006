"""What the documents list is what there is: commands with options, metrics, variables, parameters, decisions."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from scripts.env_example import OTHERS, SECTIONS, variables
from tidemill.cli.main import app
from tidemill.client.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md")]
CODE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
METRIC = re.compile(r"tidemill_(?:rpc|gateway|scheduler|inference)_[a-z_]+")


def snippets(path: Path) -> Iterator[str]:
    """Each line of a code block, and each piece of inline code."""
    text = path.read_text(encoding="utf-8")
    for block in CODE.findall(text):
        yield from (line.partition("  #")[0].strip() for line in block.splitlines())
    yield from INLINE.findall(CODE.sub("", text))


def every_snippet() -> set[str]:
    return {snippet for path in DOCUMENTS for snippet in snippets(path)}


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` name, and the words behind it."""
    command: Any = typer.main.get_command(app)
    while words and not words[0].startswith("-") and getattr(command, "commands", None):
        if words[0] not in command.commands:
            raise LookupError(f"tidemill has no command {words[0]!r}")
        command, words = command.commands[words[0]], words[1:]
    return command, words


def commands() -> list[str]:
    found = {item for item in every_snippet() if item.startswith("tidemill ") and item[9].isalpha()}
    return sorted(found)


@pytest.mark.parametrize("line", commands())
def test_commands_and_their_options_exist(line: str) -> None:
    command, rest = resolve(line.split()[1:])
    known = {option for item in command.params for option in (*item.opts, *item.secondary_opts)} | {"--help"}
    assert {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"} <= known


def test_the_documents_name_commands_at_all() -> None:
    assert len(commands()) >= 10


def test_operations_lists_every_metric_and_no_other() -> None:
    sources = [*ROOT.glob("services/*/metrics.py"), ROOT / "tidemill" / "serving.py"]
    counter = re.compile(r'Counter\(\s*"([a-z_]+)"')
    defined: set[str] = set()
    for path in sources:
        text = path.read_text()
        counters = {name.removesuffix("_total") for name in counter.findall(text)}
        defined |= {
            f"{name}_total" if (name := found.removesuffix("_total")) in counters else found
            for found in re.findall(r'"(tidemill_[a-z_]+)"', text)
        }
    assert set(METRIC.findall((ROOT / "docs" / "operations.md").read_text())) == defined


def test_variables_exist() -> None:
    known = {name for settings in SECTIONS.values() for name in variables(settings)}
    known |= {name for others in OTHERS.values() for name in others}
    named = {name for item in every_snippet() for name in re.findall(r"TIDEMILL_[A-Z_]*[A-Z]", item)}
    assert named <= known


def test_parameters_lists_every_sampling_parameter() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text().partition("## Sampling")[2].partition("##")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == PARAMETERS


def test_the_readme_s_program_is_the_example() -> None:
    program = (ROOT / "examples" / "client_ten_lines.py").read_text().partition('"""\n')[2].strip()
    assert f"```python\n{program}\n```" in (ROOT / "README.md").read_text()


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert re.findall(r"\((\d{4}-[\w-]+\.md)\)", index) == records
    numbers = [int(name[:4]) for name in records]
    assert numbers == sorted(set(numbers))
    for name in records:
        text = (folder / name).read_text()
        assert text.startswith(f"# {int(name[:4])}. ")
        assert all(part in text for part in ("**Context.**", "**Decision.**", "**Consequence.**"))

"""The example files are what their script makes of the texts, and fit the tiny model's window."""

import json

from examples import build_prompts
from scripts.tracked import ROOT
from tidemill.client.jsonl import check_file, open_input, read_lines
from tidemill.client.requests import Endpoint
from tidemill.tiny_model import WINDOW

PROMPTS = ROOT / "examples" / "prompts.jsonl"
TEMPLATE_BYTES = 200


def test_the_prompts_are_what_the_script_writes() -> None:
    assert PROMPTS.read_text() == build_prompts.build()


def test_there_are_two_hundred_and_no_two_are_alike() -> None:
    bodies = [json.dumps(json.loads(line)["body"]["messages"]) for line in PROMPTS.read_text().splitlines()]
    assert len(bodies) == len(set(bodies)) == 200
    summary = check_file(PROMPTS)
    assert (summary.rows, summary.endpoints, summary.models) == (200, {Endpoint.CHAT}, frozenset())


def test_each_fits_a_byte_level_window_with_its_answer() -> None:
    with open_input(PROMPTS) as stream:
        for item in read_lines(stream, PROMPTS.name):
            row = item.request.row
            size = sum(len(message.content.encode()) for message in row.chat.messages)
            assert 16 <= row.sampling.max_tokens <= 48
            assert size + TEMPLATE_BYTES + row.sampling.max_tokens <= WINDOW, row.custom_id


def test_each_text_names_its_source() -> None:
    for path in (ROOT / "examples" / "texts").glob("*.txt"):
        source, blank, first = path.read_text(encoding="ascii").splitlines()[:3]
        assert source.startswith("Source: "), path.name
        assert source.endswith("(public domain)"), path.name
        assert blank == ""
        assert first


def test_the_plain_examples_are_valid() -> None:
    summary = check_file(ROOT / "examples" / "plain.jsonl")
    assert (summary.rows, summary.endpoints) == (4, {Endpoint.COMPLETION})


def test_the_client_program_is_short_and_is_the_one_in_the_readme() -> None:
    source = (ROOT / "examples" / "client_ten_lines.py").read_text()
    compile(source, "client_ten_lines.py", "exec")
    program = source.partition('"""\n\n')[2]
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    assert f"```python\n{program}```" in (ROOT / "README.md").read_text()

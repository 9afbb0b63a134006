"""Schemas are compiled in a process that may be lost."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.inference.sampling import RowRefusedError
from services.inference.schemas import SchemaChecker
from tidemill.errors import RowCode
from tidemill.tiny_model import VOCABULARY, make_tiny

# vLLM and torch warn of themselves when they are imported.
pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

GOOD = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}})
EXPLODING = json.dumps({"type": "string", "pattern": "^((a{1,400}){1,400}){1,400}$"})


@pytest.fixture
def checker(tmp_path: Path) -> Iterator[SchemaChecker]:
    make_tiny(tmp_path)
    found = SchemaChecker(str(tmp_path), VOCABULARY)
    yield found
    found.close()


async def fault(checker: SchemaChecker, schema: str) -> str:
    with pytest.raises(RowRefusedError) as refused:
        await checker.require(schema)
    assert refused.value.code is RowCode.SCHEMA_INVALID
    return refused.value.message


async def test_an_exploding_schema_takes_its_process_along_and_no_more(checker: SchemaChecker) -> None:
    await asyncio.gather(*(checker.require(GOOD) for _ in range(20)))
    assert "too complex" in await fault(checker, EXPLODING)
    assert "too complex" in await fault(checker, EXPLODING), "remembered"
    await checker.require(GOOD.replace("a", "b"))
    assert "does not compile" in await fault(checker, '{"$ref": "#/$defs/lost"}')


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object, not list"),
        ('{"a":' * 33 + "1" + "}" * 33, "32 levels"),
        ("[" * 100_000, "65536"),
        ("[" * 60_000, "levels"),
        ('{"type": "array", "uniqueItems": true}', "uniqueItems"),
    ],
)
async def test_shapes_are_refused_without_a_process(schema: str, words: str) -> None:
    checker = SchemaChecker("/nowhere", 1)
    assert words in await fault(checker, schema)

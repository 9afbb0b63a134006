"""Vectors, classes and scores of real pooling engines, beside bare vLLM."""

import math
from pathlib import Path
from typing import Any

import pytest

from services.inference.engine_config import Call, EngineRow
from services.inference.models import Catalog
from services.inference.settings import ModelSource
from tests.inference.engine_host import Bare, Work
from tests.inference.hosted import config, refused, run
from tidemill.encoding import Message, Request
from tidemill.outputs import unpack_vector
from tidemill.tiny_pooling import CLASSES, DIMENSIONS, PoolingKind, make_tiny_pooling
from tidemill.weights import WeightDigests

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

TEXTS = ("The tide comes in.", "The tide goes out.", "x" * 510, "a", "été 日本")
PAIRS = tuple((f"Why number {index}?", text) for index, text in enumerate(TEXTS[:2] + TEXTS[3:]))
CLOSE = 2e-6
"""Float32 sums of another batch differ by so much."""


def asked(folder: Path, kind: PoolingKind, rows: list[Request], bare: list[Bare]) -> tuple[list[Any], list[Any]]:
    """What our actor and what bare vLLM say."""
    make_tiny_pooling(folder / kind, kind)
    catalog = Catalog(
        [ModelSource(kind, str(folder / kind))],
        WeightDigests(folder / "digests.json"),
        8192,
    )
    files = catalog.fetch(kind)
    numbered = [EngineRow(index, row) for index, row in enumerate(rows)]
    found = run(Work(config(files.folder, files.window, files.tasks), [(Call("g"), numbered)], bare), folder)
    return [found["ours"][0][index] for index in range(len(rows))], found["bare"]


def embedding(text: str, dimensions: int | None = None) -> Request:
    return Request("embedding", text=text, dimensions=dimensions)


def chat() -> Request:
    return Request("chat", messages=(Message("user", "Hello"),))


def test_vectors_are_those_of_bare_vllm(tmp_path: Path) -> None:
    short = DIMENSIONS[0]
    rows = [
        *(embedding(text) for text in TEXTS),
        embedding(TEXTS[0], short),
        Request("score", query=PAIRS[0][0], document=PAIRS[0][1]),
        embedding(TEXTS[0], 7),
        embedding("x" * 511),
        chat(),
        Request("classification", text="a"),
        Request("embedding", text="a", sampling={"temperature": 0.0}),
    ]
    bare = [*(Bare("embed", (text,)) for text in TEXTS), Bare("embed", (TEXTS[0],), {"dimensions": short})]
    ours, theirs = asked(tmp_path, "embedder", rows, [*bare, Bare("score", PAIRS[0])])
    vectors = [unpack_vector(item.vector) for item in ours[: len(bare)]]
    for own, other in zip(vectors, theirs, strict=False):
        assert own == pytest.approx(other, abs=CLOSE)
        assert math.hypot(*own) == pytest.approx(1, abs=1e-5)
    assert [len(vector) for vector in vectors] == [128] * len(TEXTS) + [short]
    assert len(set(vectors)) == len(vectors)
    assert [item.prompt_tokens for item in ours[: len(TEXTS)]] == [len(text.encode()) + 2 for text in TEXTS]
    assert ours[len(bare)].score == pytest.approx(theirs[-1], abs=CLOSE)
    refusals = [refused(item) for item in ours[len(bare) + 1 :]]
    assert [code for code, _ in refusals] == [
        "PARAMETER_OUT_OF_RANGE",
        "PROMPT_TOO_LONG",
        "TASK_NOT_SUPPORTED",
        "TASK_NOT_SUPPORTED",
        "UNSUPPORTED_PARAMETER",
    ]
    assert "one of 32, 64, 128" in refusals[0][1]
    assert "513" in refusals[1][1]
    assert "TASK_EMBED" in refusals[2][1]
    assert "sampling.temperature" in refusals[4][1]


def test_classes_are_those_of_bare_vllm(tmp_path: Path) -> None:
    rows = [*(Request("classification", text=text) for text in TEXTS), chat(), embedding("a")]
    ours, theirs = asked(tmp_path, "classifier", rows, [Bare("classify", (text,)) for text in TEXTS])
    for own, other in zip(ours, theirs, strict=False):
        probabilities = {item.label: item.probability for item in own.classes}
        assert [probabilities[label] for label in CLASSES] == pytest.approx(other, abs=CLOSE)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        ordered = [item.probability for item in own.classes]
        assert ordered == sorted(ordered, reverse=True)
    assert [refused(item)[0] for item in ours[len(TEXTS) :]] == ["TASK_NOT_SUPPORTED"] * 2


def test_scores_are_those_of_bare_vllm(tmp_path: Path) -> None:
    rows = [Request("score", query=query, document=document) for query, document in PAIRS]
    rows += [Request("score", query="q" * 300, document="d" * 300), Request("classification", text="a")]
    ours, theirs = asked(tmp_path, "scorer", rows, [Bare("score", pair) for pair in PAIRS])
    assert [item.score for item in ours[: len(PAIRS)]] == pytest.approx(theirs, abs=CLOSE)
    assert len({round(item.score, 6) for item in ours[: len(PAIRS)]}) > 1, "scores depend on the pair"
    assert [refused(item)[0] for item in ours[len(PAIRS) :]] == ["PROMPT_TOO_LONG", "TASK_NOT_SUPPORTED"]

"""The tiny pooling models: the same bytes for a seed, in the format that the engine reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from tidemill.tiny_pooling import PoolingKind, make_tiny_pooling

KINDS: tuple[PoolingKind, ...] = ("embedder", "classifier", "scorer")


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_determines_every_byte(tmp_path: Path, kind: PoolingKind) -> None:
    digests = [make_tiny_pooling(tmp_path / name, kind, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert digests[0] == digests[1] != digests[2]
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_a_pair_is_told_apart_by_its_types(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    make_tiny_pooling(tmp_path, "scorer")
    tokenizer: Any = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    pair = tokenizer.encode("ab", "c")
    assert pair.ids == [256, *b"ab", 257, *b"c", 257]
    assert pair.type_ids == [0, 0, 0, 0, 1, 1]


def test_only_the_scorer_has_one_label(tmp_path: Path) -> None:
    counts: list[int] = []
    for kind in KINDS:
        make_tiny_pooling(tmp_path / kind, kind)
        counts.append(len(json.loads((tmp_path / kind / "config.json").read_text()).get("id2label", {})))
    assert counts == [0, 3, 1]

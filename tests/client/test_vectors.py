"""Embeddings as arrays."""

import subprocess
import sys

import numpy as np
import pytest

from tidemill.client import TidemillError, vector, vectors
from tidemill.v1 import row_pb2

FAILED = row_pb2.RowResult(row_index=3, custom_id="c", error_code="PROMPT_TOO_LONG", error_message="why")


def test_rows_are_stacked_in_their_order() -> None:
    rows = [row_pb2.RowResult(embedding=[0.5, 1]), row_pb2.RowResult(embedding=[-1, 2])]
    assert vector(rows[0]).dtype == vectors(rows).dtype == np.float32
    assert vectors(iter(rows)).tolist() == [[0.5, 1.0], [-1.0, 2.0]]


def test_a_row_without_an_embedding_is_named() -> None:
    with pytest.raises(TidemillError, match=r"row 3 .*PROMPT_TOO_LONG: why"):
        vectors([row_pb2.RowResult(embedding=[1]), FAILED])
    with pytest.raises(TidemillError, match="another kind"):
        vector(row_pb2.RowResult(text="x"))


@pytest.mark.parametrize("lengths", [[], [1, 2]])
def test_rows_of_several_lengths_are_refused(lengths: list[int]) -> None:
    with pytest.raises(TidemillError, match="one length"):
        vectors([row_pb2.RowResult(embedding=[0.5] * length) for length in lengths])


def test_the_client_imports_without_numpy() -> None:
    script = "import sys, tidemill.client; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)

"""Ray reads its token once, when it is first imported: so its environment stands before any test here imports it."""

import os
from collections.abc import Iterator

import pytest

from services.inference.rayenv import isolate_local_cluster


@pytest.fixture(scope="package", autouse=True)
def isolated_ray() -> Iterator[None]:
    """The variables that `start_ray` sets, for as long as the tests of this folder run."""
    before = dict(os.environ)
    isolate_local_cluster()
    yield
    os.environ.clear()
    os.environ.update(before)

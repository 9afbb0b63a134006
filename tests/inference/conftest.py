"""Ray reads its token once, when it is first imported: so its environment stands before any test here imports it."""

import os
import sys
from collections.abc import Iterator

import pytest

from services.inference.environment import prepare_environment
from services.inference.rayenv import isolate_local_cluster, start_ray, stop_ray
from services.inference.settings import InferenceSettings


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray cluster of this process, on two logical CPUs."""
    before = dict(os.environ)
    prepare_environment("cpu")
    options = InferenceSettings(ray_cpus=2).ray_options()
    start_ray(options)
    yield
    stop_ray(options)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="package", autouse=True)
def isolated_ray() -> Iterator[None]:
    """The variables that `start_ray` sets, for as long as the tests of this folder run."""
    assert "ray" not in sys.modules, "a test module imports ray at its top: import it where it is used"
    before = dict(os.environ)
    isolate_local_cluster()
    yield
    os.environ.clear()
    os.environ.update(before)

"""`changed` is `dataclasses.replace` for jobs."""

from dataclasses import FrozenInstanceError, replace

import pytest

from services.scheduler.core.records import Job, Terms
from services.scheduler.core.successors import changed
from tests.scheduler import builders
from tidemill.v1 import job_pb2

JOB = Job(
    builders.spec(),
    builders.job_name(),
    "acme",
    "tiny",
    Terms(1),
    state=job_pb2.JOB_STATE_QUEUED,
    revision=1,
    create_ns=1,
)


def test_it_makes_what_replace_makes_and_leaves_the_original() -> None:
    before = replace(JOB)
    assert changed(JOB, revision=7, end=3) == replace(JOB, revision=7, end=3)
    assert before == JOB


def test_the_successor_is_as_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        changed(JOB, revision=7).revision = 8  # pyright: ignore[reportAttributeAccessIssue]


def test_a_field_that_a_job_has_not_is_refused() -> None:
    with pytest.raises(TypeError, match="a job has no rivision"):
        changed(JOB, rivision=7)

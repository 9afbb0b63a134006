"""What the scheduler is told when a lease ends early."""

import pytest

from services.inference.blame import EngineFailedError, NodeLostError, causes, engine_died, last_words, unreachable
from services.inference.chunk_task import IncompleteError
from services.inference.held import HeldLease
from services.inference.link import LeaseVoidError
from services.inference.releases import Release, release_for
from services.inference.resident import EngineUnavailableError, WeightsChangedError
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb


def held(*ended: str) -> HeldLease:
    lease = HeldLease(pb.Lease(spec=records_pb2.JobSpec(name="j", model="m"), fence=7))
    for name in ended:
        getattr(lease, name).set()
    return lease


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (EngineFailedError("gone", died=True), Release(True, "gone", engine_died=True)),
        (EngineFailedError("task failed"), Release(True, "task failed")),
        (NodeLostError("node died"), Release(False, "node died")),
        (EngineUnavailableError("no load"), Release(True, "no load")),
        (IncompleteError("short"), Release(True, "short")),
        (WeightsChangedError("changed"), Release(True, "changed", "MODEL_WEIGHTS_CHANGED")),
        (ValueError("ours"), Release(True, "ValueError: ours")),
    ],
)
def test_only_a_death_makes_a_suspect(failure: Exception, expected: Release) -> None:
    assert release_for(held(), failure) == expected


def test_corrupt_data_is_fatal_and_a_store_that_fails_is_not() -> None:
    corrupt = release_for(held(), TidemillError(Reason.DATA_CORRUPT, "changed"))
    assert corrupt is not None
    assert (corrupt.failed, corrupt.fatal_reason) == (True, "DATA_CORRUPT")
    failing = release_for(held(), TidemillError(Reason.STORE_FAILED, "disk"))
    assert failing is not None
    assert (failing.failed, failing.fatal_reason) == (False, "")


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        (("void",), None),
        (("halted", "void"), None),
        (("stopping", "void"), None),
        (("halted",), "the job is being stopped"),
        (("halted", "stopping"), "the job is being stopped"),
        (("stopping",), "the worker stops"),
    ],
)
def test_what_ended_in_order_is_no_failure(ended: tuple[str, ...], message: str | None) -> None:
    release = release_for(held(*ended), LeaseVoidError("over"))
    assert (release and (release.failed, release.message)) == (message and (False, message))


def test_a_refused_lease_is_given_back_with_the_refusal() -> None:
    assert release_for(held(), LeaseVoidError("the job is unknown")) == Release(True, "the job is unknown")


def test_an_engine_that_ends_with_its_worker_is_no_ones_fault() -> None:
    assert release_for(held("stopping"), EngineFailedError("gone", died=True)) == Release(False, "gone")


def test_long_words_are_cut() -> None:
    request = Release(True, "x" * 5000, engine_died=True).request(held())
    assert (len(request.message), request.engine_died, request.failed, request.lease.fence) == (1000, True, True, 7)


def test_a_death_is_told_from_other_failures() -> None:
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

    from services.inference.actor import EngineLostError

    def wrapped(cause: Exception) -> Exception:
        return RayTaskError("generate", "trace", cause)

    died = ActorDiedError()
    died.actor_id = "ab"
    assert engine_died(died, "ab")
    assert not engine_died(died, "cd"), "another actor's death"
    assert engine_died(died, None)
    assert engine_died(wrapped(EngineLostError("the engine of m died")), "cd")
    assert not engine_died(wrapped(ValueError("a task failed")), "ab")
    assert not engine_died(ActorUnavailableError("away", b"\x01" * 16), "ab")


def test_last_words_are_the_deepest_causes() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = ValueError("first\nlast line")
    assert last_words(outer) == "last line"
    assert len(causes(outer)) == 2
    assert last_words(KeyError()) == "KeyError"


def test_last_words_are_not_advice_of_ray_data() -> None:
    text = "Traceback\nEngineAwayError: there is no engine e any more\nTo change retry attempts, configure `ray.data`"
    assert last_words(RuntimeError(text)) == "EngineAwayError: there is no engine e any more"
    assert unreachable(RuntimeError(text))
    assert not unreachable(RuntimeError("ValueError: ours"))

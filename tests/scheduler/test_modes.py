"""Shared or dedicated: what was asked for, else by the work that one load would serve."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core import admission, chunks
from services.scheduler.core.capacity import Capacity
from services.scheduler.core.jobs import seal_job
from services.scheduler.core.limits import Limits
from services.scheduler.core.modes import ModeFacts, chosen_mode, mode_facts
from services.scheduler.core.prospects import Backlog
from services.scheduler.outlooks import capacity_of
from services.scheduler.workers import Workers
from tests.scheduler import builders
from tests.scheduler.desk import Desk
from tidemill.errors import TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.v1 import job_pb2

OPEN = job_pb2.EXECUTION_MODE_UNSPECIFIED
SHARED = job_pb2.EXECUTION_MODE_SHARED
DEDICATED = job_pb2.EXECUTION_MODE_DEDICATED
LIMITS = Limits(chunk_rows=1000, dedicated_loads=10)
LARGE = ModeFacts(OPEN, rows=10_000, row_seconds=0.5, load_seconds=60, spare_engines=1, shared_only_rows=0)


@pytest.mark.parametrize(
    "less",
    [
        {"rows": 1199},
        {"row_seconds": 0.1},
        {"row_seconds": None},
        {"load_seconds": 0.0},
        {"load_seconds": 400.0},
        {"spare_engines": 0},
        {"shared_only_rows": 1},
    ],
)
def test_a_large_job_gets_engines_of_its_own_where_all_speaks_for_it(less: dict[str, float | None]) -> None:
    assert chosen_mode(LARGE, LIMITS) == DEDICATED
    assert chosen_mode(replace(LARGE, **less), LIMITS) == SHARED
    assert chosen_mode(LARGE, replace(LIMITS, dedicated_loads=0)) == SHARED


facts = st.builds(
    ModeFacts,
    asked=st.sampled_from([OPEN, SHARED, DEDICATED]),
    rows=st.integers(1, 10**7),
    row_seconds=st.none() | st.floats(0, 100),
    load_seconds=st.floats(0, 3600),
    spare_engines=st.integers(0, 8),
    shared_only_rows=st.integers(0, 2),
)


@given(facts, st.floats(0, 100))
def test_who_asks_gets_it_and_nobody_else_loads_for_little(asked: ModeFacts, loads: float) -> None:
    mode = chosen_mode(asked, replace(LIMITS, dedicated_loads=loads))
    if asked.asked:
        assert mode == asked.asked
    elif mode == DEDICATED:
        assert asked.rows * (asked.row_seconds or 0) >= loads * asked.load_seconds
        assert (loads > 0, asked.load_seconds > 0, asked.shared_only_rows) == (True, True, 0)
    else:
        assert mode == SHARED


def open_spec() -> records_pb2.JobSpec:
    spec = builders.spec()
    spec.execution_mode = OPEN
    return spec


def test_the_seal_fixes_the_mode_and_leases_name_it() -> None:
    desk = Desk()
    name = desk.fill(open_spec(), [25])
    assert desk.view().execution_mode == OPEN
    desk.seal(builders.seal(name, 25))
    assert desk.view().execution_mode == SHARED, "nobody looked at the capacity"
    (lease,) = desk.lease()
    assert lease.spec.execution_mode == SHARED
    assert desk.job().spec.execution_mode == OPEN, "what the client said stays as it is"


def test_the_seal_chooses_by_what_the_model_took_before() -> None:
    desk = Desk(Limits(chunk_rows=10, dedicated_loads=10))
    desk.queue(rows=[30])
    for lease in desk.lease(3):
        request = builders.part(lease, set(range(10)))
        request.busy_seconds = 50
        desk.commit(request)
    spec = builders.spec(2)
    spec.execution_mode = OPEN
    name = desk.fill(spec, [40])
    several = builders.spec(3)
    several.sampling.n = 2
    capacity = Capacity(1, {"tiny": 1}, {"tiny": 1}, {"tiny": 15.0}, spare={"tiny": 2})
    facts = mode_facts(desk.state, capacity, desk.job(2))
    assert facts.row_seconds is not None
    assert (facts.rows, facts.spare_engines, facts.load_seconds) == (40, 2, 15.0)
    assert 40 * facts.row_seconds > 150
    desk.fill(several, [7])
    assert mode_facts(desk.state, capacity, desk.job(3)).shared_only_rows == 7
    backlog = Backlog(desk.state, capacity, desk.limits, desk.now_ns)
    desk.record(seal_job(desk.state, builders.seal(name, 40), lambda job: admission.admit(backlog, job)))
    assert desk.view(2).execution_mode == DEDICATED
    chunk = next(lease for lease in desk.lease(4) if lease.spec.name == name)
    assert chunk.spec.execution_mode == DEDICATED
    assert chunk.chunk_rows * facts.row_seconds > desk.limits.chunk_seconds, "one load for more than a usual chunk"
    assert desk.replayed().jobs[name].mode == DEDICATED


def test_a_chunk_that_loads_an_engine_is_long_enough_for_it() -> None:
    limits = Limits(chunk_rows=100, chunk_seconds=60, dedicated_loads=10)
    assert chunks.dedicated_budget(limits, None, 10, 60) == chunks.chunk_budget(limits, None, 10)
    assert chunks.dedicated_budget(limits, 10.0, 20, 60) == 300
    assert chunks.dedicated_budget(limits, 10.0, 20, 600) == 400, "parts carry a bit for each row of it"
    assert chunks.dedicated_budget(limits, 10.0, 20, 0.1) == chunks.chunk_budget(limits, 10.0, 20) == 30


def test_workers_add_up_to_the_spare_engines() -> None:
    workers = Workers(15.0)
    for name, spare in (("w1", 2), ("w2", 1)):
        report = builders.report()
        report.spare_engines = spare
        workers.report(name, [report], 1.0)
    assert capacity_of(workers, 2.0, 60.0).spare == {"tiny": 3}
    report = builders.report()
    report.spare_engines = -1
    with pytest.raises(TidemillError, match="spare_engines"):
        workers.report("w3", [report], 1.0)

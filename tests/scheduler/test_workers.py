"""The registry of workers: who lives, which models are on offer."""

import pytest

from services.scheduler.outlooks import capacity_of
from services.scheduler.workers import Workers
from tests.scheduler import builders
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import records_pb2
from tidemill.v1 import model_service_pb2

COLD = model_service_pb2.MODEL_STATE_COLD
LOADING = model_service_pb2.MODEL_STATE_LOADING
LOADED = model_service_pb2.MODEL_STATE_LOADED
FAILED = model_service_pb2.MODEL_STATE_FAILED


def test_the_best_state_over_live_workers_is_shown():
    workers = Workers(15)
    workers.report("a", [builders.report("x", FAILED), builders.report("y", COLD)], 0)
    workers.report("b", [builders.report("x", LOADING)], 0)
    assert [(report.model, report.state, number) for report, number in workers.models(10)] == [
        ("x", LOADING, 2),
        ("y", COLD, 1),
    ]
    workers.report("b", [builders.report("x", LOADED)], 12)
    assert [(report.model, report.state, number) for report, number in workers.models(20)] == [("x", LOADED, 1)]
    assert workers.models(30) == []


def test_replicas_and_deaths_are_summed_over_live_workers():
    workers = Workers(15)
    for name, state, replicas, deaths in (("a", LOADED, 2, 1), ("b", FAILED, 0, 3)):
        report = builders.report("x", state)
        report.replicas, report.engine_deaths = replicas, deaths
        workers.report(name, [report], 0)
    ((report, _),) = workers.models(10)
    assert (report.state, report.replicas, report.engine_deaths) == (LOADED, 2, 4)
    ((again, _),) = workers.models(10)
    assert again == report, "what workers said is not changed"


def test_a_waiting_worker_lives():
    workers = Workers(15)
    worker, _ = workers.report("a", [builders.report()], 0)
    with workers.polling(worker):
        assert len(workers.live(29)) == 1
    assert workers.live(30) == []


def test_loading_means_that_nobody_has_it_loaded():
    workers = Workers(15)
    assert not workers.is_loading("x", 0)
    workers.report("a", [builders.report("x", LOADING)], 0)
    assert workers.is_loading("x", 0)
    workers.report("b", [builders.report("x", LOADED)], 0)
    assert not workers.is_loading("x", 0)
    assert not workers.is_loading("y", 0)


def test_changes_of_a_report_are_named():
    workers = Workers(15)
    _, changed = workers.report("a", [builders.report("x", COLD)], 0)
    assert changed == {"x"}
    _, changed = workers.report("a", [builders.report("x", COLD)], 1)
    assert changed == set()
    _, changed = workers.report("a", [builders.report("y", COLD)], 2)
    assert changed == {"x", "y"}


@pytest.mark.parametrize(
    ("worker_id", "report"),
    [
        ("", builders.report()),
        ("w" * 257, builders.report()),
        ("w", builders.report("")),
        ("w", records_pb2.ModelReport(model="x")),
    ],
)
def test_nonsense_reports_are_refused(worker_id: str, report: records_pb2.ModelReport):
    error = refusal(Workers(15).report, worker_id, [report], 0)
    assert error.reason is Reason.INVALID_ARGUMENT


def test_an_offer_says_what_loading_took_and_who_shares_the_work():
    workers = Workers(15)
    cold = builders.report("x", COLD)
    cold.load_seconds = 12.5
    worker, _ = workers.report("a", [cold, builders.report("y")], 0)
    workers.report("b", [builders.report("x")], 0)
    offer = workers.offer(worker, 0)
    assert (offer.models, offer.load_seconds) == ({"x": COLD, "y": LOADED}, {"x": 12.5})
    assert offer.engines == {"x": 2, "y": 1}
    assert workers.offer(worker, 10_000).engines == {"x": 0, "y": 0}
    cold.load_seconds = -1
    assert refusal(workers.report, "a", [cold], 0).reason is Reason.INVALID_ARGUMENT


def test_a_load_that_nobody_measured_is_taken_as_set():
    workers = Workers(15)
    workers.report("a", [builders.report("x", COLD)], 0)
    assert capacity_of(workers, 1, 42.0).load_time("x") == 42.0
    loaded = builders.report("x", COLD)
    loaded.load_seconds = 7.0
    workers.report("a", [loaded], 0)
    assert capacity_of(workers, 1, 42.0).load_time("x") == 7.0

"""What commits teach, and the estimates that follow from it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.core import estimates, paces
from services.scheduler.core.paces import ModelPace, learn
from services.scheduler.core.records import Job, Part, Tally, Terms
from services.scheduler.core.slack import remaining_ns
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from tests.scheduler import builders
from tests.scheduler.desk import Desk
from tidemill.v1 import job_pb2


def job(rows: int = 100, text_bytes: int = 0, limit: int = 0, tally: Tally | None = None) -> Job:
    return Job(
        spec=builders.spec(),
        name=builders.job_name(),
        tenant="acme",
        model="tiny",
        terms=Terms(0),
        state=job_pb2.JOB_STATE_RUNNING,
        revision=1,
        create_ns=0,
        end=rows,
        text_bytes=text_bytes,
        max_output_tokens=limit,
        tally=tally or Tally(),
    )


def part(rows: int, prompt: int, output: int) -> Part:
    tally = Tally(succeeded=rows, prompt_tokens=prompt * rows, output_tokens=output * rows)
    return Part("k", 0, rows, 1, 0, 0, b"", tally, 0, rows)


def taught(rate: float, times: int = 5, output: int = 20) -> ModelPace:
    pace = ModelPace()
    for _ in range(times):
        pace = learn(pace, job(), part(10, 10, output), 10 * (10 + output) / rate)
    return pace


@given(rate=st.floats(1, 1e5), times=st.integers(1, 50))
def test_a_steady_rate_is_learnt_and_without_noise(rate: float, times: int) -> None:
    pace = taught(rate, times)
    assert pace.tokens_per_second == pytest.approx(rate)
    assert pace.noise == pytest.approx(0)
    assert pace.output_per_row == pytest.approx(20)


@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 500)), min_size=1, max_size=30))
def test_the_average_rate_lies_within_the_rates_seen(parts: list[tuple[float, int]]) -> None:
    pace, rates = ModelPace(), list[float]()
    for seconds, output in parts:
        pace = learn(pace, job(), part(4, 10, output), seconds)
        rates.append(4 * (10 + output) / seconds)
    assert min(rates) * 0.999 <= pace.tokens_per_second <= max(rates) * 1.001


def test_a_moment_of_starvation_weighs_as_much_as_it_took() -> None:
    pace = ModelPace()
    for _ in range(50):
        pace = learn(pace, job(), part(100, 10, 90), 1.0)
    pace = learn(pace, job(), part(1, 10, 70), 16.0)
    assert pace.tokens_per_second == pytest.approx((50 * 10_000 + 80) / 66)


def test_a_new_rate_takes_over_after_the_memory() -> None:
    pace = taught(100, 100)
    for _ in range(200):
        pace = learn(pace, job(), part(1000, 10, 20), 30000 / 500)
    assert pace.tokens_per_second == pytest.approx(500, rel=0.02)


def test_parts_without_answers_or_time_teach_no_rate() -> None:
    failed = replace(part(10, 1, 1), tally=Tally(failed=10))
    assert learn(ModelPace(), job(), failed, 1.0) == ModelPace()
    assert learn(ModelPace(), job(), part(10, 1, 1), 0.0).commits == 0


def test_the_rate_is_known_after_three_commits() -> None:
    state, estimated = State(paces={"tiny": taught(100, 2)}), replace(job(rows=100), row_tokens=30)
    assert estimates.model_rate(state, "tiny") is None
    assert remaining_ns(estimated, state.paces["tiny"]) == 0
    state.paces["tiny"] = taught(100, 3)
    assert estimates.model_rate(state, "tiny") == pytest.approx(100)
    assert remaining_ns(estimated, state.paces["tiny"]) == pytest.approx(30 * SECOND)


def test_a_first_guess_comes_from_text_limit_and_model() -> None:
    unknown = ModelPace()
    assert estimates.expected_row_tokens(unknown, job())[0] == 256 + 128
    assert estimates.expected_row_tokens(unknown, job(100, text_bytes=100 * 400, limit=100 * 16))[0] == 100 + 16
    # What the model's rows take counts, but never more than the job's own limit.
    assert estimates.expected_row_tokens(taught(100), job(100, 100 * 400, 100 * 16))[0] == 116
    assert estimates.expected_row_tokens(taught(100), job(100, 100 * 400, 100 * 500))[0] == 120


@given(rows=st.integers(0, 5000), output=st.integers(1, 2000))
def test_the_jobs_own_rows_take_the_guess_over_and_narrow_it(rows: int, output: int) -> None:
    tally = Tally(succeeded=rows, prompt_tokens=100 * rows, output_tokens=output * rows)
    p50, p90 = estimates.expected_row_tokens(taught(100), job(10_000, 10_000 * 400, 0, tally))
    assert min(20, output) - 1 <= p50 - 100 <= max(20, output) + 1
    assert p50 <= p90
    if rows > 2000:
        assert p50 - 100 == pytest.approx(output, rel=0.02, abs=1)
        assert p90 - p50 <= 0.07 * output + 1


def test_the_fold_keeps_the_estimates_current() -> None:
    desk = Desk()
    desk.queue(rows=(40,))
    assert desk.job().row_tokens == 384
    for _ in range(3):
        (lease,) = desk.lease()
        request = builders.part(lease, set(range(10)))
        request.busy_seconds = 0.5
        desk.commit(request)
    assert estimates.model_rate(desk.state, "tiny") == pytest.approx(100)
    assert desk.job().row_tokens < 384
    left = remaining_ns(desk.job(), desk.state.paces["tiny"])
    assert left == pytest.approx(10 * desk.job().row_tokens / 100 * SECOND)
    assert desk.replayed().paces == desk.state.paces


def test_rate_spread_grows_with_noise() -> None:
    assert estimates.rate_spread(ModelPace()) == 1
    assert estimates.rate_spread(ModelPace(noise=0.1)) > 1.1
    assert paces.ModelPace().bytes_per_token == paces.BYTES_PER_TOKEN

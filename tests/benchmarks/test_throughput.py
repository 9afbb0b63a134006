"""The throughput benchmarks' own logic; what they measure is not a test's business."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import matrix, matrix_plot, throughput
from benchmarks.matrix_model import Steps, fit_steps, parameters, simulated_rate
from benchmarks.throughput_rows import Work

WORK = Work(rows=100, output_tokens=4)


class FakeSide:
    """Takes as long as it is told, and notes what it was asked."""

    def __init__(self, name: str, seconds: float, asked: list[tuple[str, int]], most_repeats: int = 100) -> None:
        self.name, self._seconds, self._asked, self.most_repeats = name, seconds, asked, most_repeats

    def warm(self, work: Work) -> None:
        self._asked.append((self.name, 0))

    def seconds(self, work: Work, run: int) -> float:
        self._asked.append((self.name, run))
        return self._seconds


def test_sides_alternate_and_slow_ones_run_once() -> None:
    asked: list[tuple[str, int]] = []
    sides = {"bare": FakeSide("bare", 2, asked), "slow": FakeSide("slow", 9, asked, 1)}
    throughput.measure(sides, WORK, 2)
    assert asked == [("bare", 0), ("slow", 0), ("bare", 1), ("slow", 1), ("bare", 2)]


def test_the_json_has_rates_and_the_ratio_of_shared_over_bare() -> None:
    sides = {"bare": FakeSide("bare", 2, []), "shared": FakeSide("shared", 4, [])}
    found = json.loads(json.dumps(throughput.as_json(throughput.measure(sides, WORK, 3), "tiny")))
    assert found["sides"] == {"bare": 50.0, "shared": 25.0}
    assert found["ratio"] == 0.5
    assert found["spread"]["over_bare"]["shared"]["runs"] == 3


def test_without_bare_there_is_no_ratio() -> None:
    measured = throughput.measure({"shared": FakeSide("shared", 4, [])}, WORK, 1)
    assert throughput.as_json(measured, "tiny")["ratio"] is None
    assert "over bare" not in throughput.as_table(measured, "tiny")


@given(st.integers(0, 20), st.integers(0, 20))
def test_prompts_are_unique_over_rows_and_runs(one: int, other: int) -> None:
    work = Work(200, 1)
    prompts = work.prompts(one)
    assert len(set(prompts)) == work.rows
    assert one == other or not set(prompts) & set(work.prompts(other))


def test_parameters_are_those_of_the_public_models() -> None:
    assert parameters("qwen2.5-0.5b") == pytest.approx(0.494e9, rel=0.01)
    assert parameters("qwen2.5-7b") == pytest.approx(7.6e9, rel=0.01)


@given(st.floats(1e-12, 1e-9), st.floats(1e-14, 1e-10))
def test_the_fit_finds_the_steps_it_was_made_from(fixed: float, per_row: float) -> None:
    steps = Steps(fixed, per_row)
    known = [(batch, simulated_rate(steps, "qwen2.5-0.5b", batch, 16)) for batch in (16, 64, 128)]
    found = fit_steps(known, "qwen2.5-0.5b", 16)
    assert found.fixed == pytest.approx(fixed, rel=1e-3, abs=1e-15)
    assert found.per_row == pytest.approx(per_row, rel=1e-3)


def test_one_batch_size_is_too_little_for_a_fit() -> None:
    with pytest.raises(ValueError, match="two different"):
        fit_steps([(16, 1.0), (16, 2.0)], "qwen2.5-0.5b", 16)


def test_every_pair_of_values_is_measured() -> None:
    cells = matrix.plan()
    assert {(batch, concurrency) for _, batch, concurrency in cells} == {
        (batch, concurrency) for batch in matrix.BATCHES for concurrency in matrix.CONCURRENCIES
    }
    assert len({(shape, batch) for shape, batch, _ in cells}) == 2 * len(matrix.BATCHES)
    assert len({(shape, concurrency) for shape, _, concurrency in cells}) == 2 * len(matrix.CONCURRENCIES)


def test_the_large_shape_is_marked_as_simulated(tmp_path: Path) -> None:
    cells = [matrix.Cell(matrix.SMALL, batch, 1, rate, "measured") for batch, rate in ((16, 5.0), (64, 9.0))]
    simulated = matrix.simulate(cells)
    assert {cell.origin for cell in simulated} == {"simulated"}
    assert all(cell.rows_per_s < 9.0 for cell in simulated)
    assert [path.name for path in matrix_plot.draw(tmp_path, [*cells, *simulated])] == [
        "matrix-qwen2.5-0.5b.png",
        "matrix-qwen2.5-7b.png",
    ]
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())

"""`tidemill.verify`: a whole job is verified, and each way to damage one is found and named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tidemill.stored_job import INPUT, JOB, OUTPUT, ROWS, StoredJob, answered, input_row
from tidemill.errors import Reason, TidemillError
from tidemill.store import attach_store
from tidemill.verify import Expected, Fault, verify
from tidemill.verify.distinct import DistinctSample

Damage = Callable[[StoredJob], object]


def test_a_whole_job_is_verified(tmp_path: Path) -> None:
    report = verify(StoredJob(tmp_path).store, OUTPUT)
    assert (report.verified, report.findings) == (True, [])
    assert (report.job, report.rows, report.succeeded, report.failed) == (JOB, ROWS, ROWS - 1, 1)
    assert (report.empty_answers, report.echoes, report.duplicated_answers, report.largest_group) == (0, 0, 0, 0)


def test_what_people_should_look_at_is_counted_and_no_fault(tmp_path: Path) -> None:
    texts = {0: "", 1: " \n", 2: "text 2", 3: " text 3\n", 4: "same", 5: "same ", 6: "same"}
    report = verify(StoredJob(tmp_path, text=lambda index: texts.get(index, f"answer {index}")).store, OUTPUT)
    assert report.verified
    assert (report.empty_answers, report.echoes) == (2, 2)
    assert (report.duplicated_answers, report.largest_group) == (2, 3)


def _key(job: StoredJob, kind: str, number: int) -> str:
    return job.manifest(INPUT if kind == "segments" else OUTPUT)[kind][number]["key"]


def _flip(job: StoredJob, kind: str, number: int) -> None:
    path = job.store.path(_key(job, kind, number))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _replace_result(job: StoredJob, index: int, **changes: Any) -> None:
    """Change a result in the third part, rows 10 to 19."""
    rows = [replace(row, **changes) if row.row_index == index else row for row in job.results[10:20]]
    job.rewrite_part(2, rows)


def _not_parquet(job: StoredJob) -> None:
    data = b"PAR1 and no more"
    file = job.store.put(_key(job, "parts", 2), data)
    job.edit(OUTPUT, lambda found: found["parts"][2].update(sha256=file.sha256.hex()))


def _row_of_the_input(job: StoredJob, **changes: Any) -> None:
    job.rewrite_segment(1, [replace(job.inputs[12], **changes), *job.inputs[13:]])


def _record(job: StoredJob) -> Path:
    return job.store.path(f"engines/{job.record}.json")


DAMAGES: dict[str, tuple[Damage, Fault]] = {
    "output manifest gone": (lambda job: job.store.delete(OUTPUT), Fault.MANIFEST_MISSING),
    "output manifest cut off": (
        lambda job: job.store.put(OUTPUT, job.store.get(OUTPUT)[:-9]),
        Fault.MANIFEST_UNREADABLE,
    ),
    "unknown schema version": (
        lambda job: job.edit(OUTPUT, lambda found: found.update(schema_version="tidemill.dataset.v9")),
        Fault.SCHEMA_UNKNOWN,
    ),
    "a field that nobody knows": (
        lambda job: job.edit(OUTPUT, lambda found: found.update(extra=1)),
        Fault.MANIFEST_UNREADABLE,
    ),
    "input manifest gone": (lambda job: job.store.delete(INPUT), Fault.MANIFEST_MISSING),
    "input manifest of another job": (
        lambda job: job.edit(INPUT, lambda found: found.update(job=JOB[:-1] + "X")),
        Fault.PARENT_MISMATCH,
    ),
    "another parent version": (
        lambda job: job.edit(OUTPUT, lambda found: found.update(parent="0" * 64)),
        Fault.PARENT_MISMATCH,
    ),
    "input version changed": (
        lambda job: job.edit(INPUT, lambda found: found.update(data_version="0" * 64)),
        Fault.VERSION_MISMATCH,
    ),
    "output version changed": (
        lambda job: job.edit(OUTPUT, lambda found: found.update(data_version="0" * 64)),
        Fault.VERSION_MISMATCH,
    ),
    "input root changed": (
        lambda job: job.edit(INPUT, lambda found: found.update(merkle_root="0" * 64)),
        Fault.MERKLE_ROOT_MISMATCH,
    ),
    "output root changed": (
        lambda job: job.edit(OUTPUT, lambda found: found.update(merkle_root="0" * 64)),
        Fault.MERKLE_ROOT_MISMATCH,
    ),
    "specification changed": (
        lambda job: job.edit(OUTPUT, lambda found: found.update(spec=found["spec"].replace("dd", "de", 1))),
        Fault.SPEC_CHANGED,
    ),
    "input segment gone": (lambda job: job.store.delete(_key(job, "segments", 0)), Fault.SEGMENT_MISSING),
    "input segment changed": (lambda job: _flip(job, "segments", 1), Fault.SEGMENT_CHANGED),
    "input segment listed twice": (
        lambda job: job.edit(INPUT, lambda found: found["segments"].append(found["segments"][0])),
        Fault.SEGMENT_TWICE,
    ),
    "input segment left out": (
        lambda job: job.edit(INPUT, lambda found: found["segments"].pop(0)),
        Fault.SEGMENT_ORDER,
    ),
    "input segment too short": (lambda job: job.rewrite_segment(1, job.inputs[12:24]), Fault.SEGMENT_ROWS),
    "input segment too long": (
        lambda job: job.rewrite_segment(1, [*job.inputs[12:], input_row(ROWS, "more")]),
        Fault.SEGMENT_ROWS,
    ),
    "input row changed": (
        lambda job: _row_of_the_input(job, request=input_row(12, "other").request),
        Fault.ROW_CHANGED,
    ),
    "input row out of place": (lambda job: _row_of_the_input(job, row_index=24), Fault.ROW_OUT_OF_PLACE),
    "input rows swapped": (
        lambda job: job.rewrite_segment(1, [job.inputs[13], job.inputs[12], *job.inputs[14:]]),
        Fault.ROW_OUT_OF_PLACE,
    ),
    "custom id twice": (
        lambda job: _row_of_the_input(job, custom_id="r3", digest=input_row(3, "text 12").digest),
        Fault.CUSTOM_ID_TWICE,
    ),
    "part gone": (lambda job: job.store.delete(_key(job, "parts", 1)), Fault.SEGMENT_MISSING),
    "part changed": (lambda job: _flip(job, "parts", 2), Fault.SEGMENT_CHANGED),
    "part is no Parquet": (_not_parquet, Fault.SEGMENT_UNREADABLE),
    "part without a column": (
        lambda job: job.rewrite_part(2, job.results[10:20], drop=["output_digest"]),
        Fault.SEGMENT_UNREADABLE,
    ),
    "part listed twice": (
        lambda job: job.edit(OUTPUT, lambda found: found["parts"].append(found["parts"][0])),
        Fault.SEGMENT_TWICE,
    ),
    "part left out": (lambda job: job.edit(OUTPUT, lambda found: found["parts"].pop(0)), Fault.RESULT_MISSING),
    "last chunk left out": (lambda job: job.edit(OUTPUT, lambda found: found["parts"].pop()), Fault.RESULT_MISSING),
    "middle chunk left out": (lambda job: job.edit(OUTPUT, lambda found: found["parts"].pop(2)), Fault.RESULT_MISSING),
    "result left out": (lambda job: job.rewrite_part(2, job.results[10:19]), Fault.RESULT_MISSING),
    "result twice": (
        lambda job: job.rewrite_part(2, [*job.results[10:20], job.results[12]]),
        Fault.RESULT_TWICE,
    ),
    "result in two parts": (lambda job: job.rewrite_part(1, job.results[:6]), Fault.RESULT_TWICE),
    "result of a row that nobody asked": (
        lambda job: job.rewrite_part(3, [*job.results[20:], answered(input_row(ROWS, "x"), "made up", job.record)]),
        Fault.RESULT_INVENTED,
    ),
    "result of another request": (
        lambda job: _replace_result(job, 12, request_digest=input_row(12, "other").digest),
        Fault.RESULT_OF_ANOTHER_ROW,
    ),
    "result under another custom id": (
        lambda job: _replace_result(job, 12, custom_id="r13"),
        Fault.RESULT_OF_ANOTHER_ROW,
    ),
    "answer changed": (lambda job: _replace_result(job, 12, text="another answer"), Fault.OUTPUT_CHANGED),
    "answer changed with its digest": (
        lambda job: job.rewrite_part(2, [answered(job.inputs[10], "another answer", job.record), *job.results[11:20]]),
        Fault.MERKLE_ROOT_MISMATCH,
    ),
    "answer of no model": (
        lambda job: _replace_result(job, 12, model_digest="", engine_build="", engine_record=""),
        Fault.ANSWER_WITHOUT_MODEL,
    ),
    "success without an answer": (lambda job: _replace_result(job, 12, text=None), Fault.ANSWER_WITHOUT_MODEL),
    "error with an answer": (lambda job: _replace_result(job, 12, status=2), Fault.ERROR_WITH_ANSWER),
    "unknown status": (lambda job: _replace_result(job, 12, status=9), Fault.STATUS_UNKNOWN),
    "counts changed": (
        lambda job: job.edit(OUTPUT, lambda found: found["counts"].update(succeeded=ROWS, failed=0)),
        Fault.COUNTS_MISMATCH,
    ),
    "usage changed": (
        lambda job: job.edit(OUTPUT, lambda found: found["usage"].update(output_tokens=1)),
        Fault.USAGE_MISMATCH,
    ),
    "another engine named": (
        lambda job: job.edit(OUTPUT, lambda found: found["engines"][0].update(engine_build="vllm 1 (gpu)")),
        Fault.ENGINES_MISMATCH,
    ),
    "engine record gone": (lambda job: _record(job).unlink(), Fault.ENGINE_RECORD_MISSING),
    "engine record changed": (
        lambda job: _record(job).write_bytes(_record(job).read_bytes().replace(b"float32", b"float16")),
        Fault.ENGINE_RECORD_CHANGED,
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_named(name: str, tmp_path: Path) -> None:
    damage, fault = DAMAGES[name]
    job = StoredJob(tmp_path)
    damage(job)
    report = verify(job.store, OUTPUT)
    assert not report.verified
    assert fault in report.faults, report.findings
    assert all(finding.message for finding in report.findings)


@settings(max_examples=25)
@given(st.binary(min_size=1, max_size=40), st.integers(0, 3), st.floats(0, 1))
def test_bytes_written_anywhere_into_a_part_are_found(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, number: int, where: float
) -> None:
    job = StoredJob(tmp_path_factory.mktemp("job"))
    path = job.store.path(_key(job, "parts", number))
    before = path.read_bytes()
    at = int(where * len(before))
    after = before[:at] + data + before[at + len(data) :]
    path.write_bytes(after)
    assert verify(job.store, OUTPUT).verified == (after == before)


def _expected(job: StoredJob) -> Expected:
    document = job.manifest(OUTPUT)
    return Expected(JOB, document["parent"], document["data_version"], ROWS, ROWS - 1, 1, 0, 0)


def test_the_ledger_is_compared(tmp_path: Path) -> None:
    job = StoredJob(tmp_path)
    assert verify(job.store, OUTPUT, _expected(job)).verified
    report = verify(job.store, OUTPUT, replace(_expected(job), succeeded=ROWS, failed=0))
    assert list(report.faults) == [Fault.LEDGER_MISMATCH]


def test_another_job_of_the_same_shape_in_its_place_is_found(tmp_path: Path) -> None:
    job = StoredJob(tmp_path / "one")
    expected = _expected(job)
    other = StoredJob(tmp_path / "two", text=lambda index: f"another {index}")
    assert verify(other.store, OUTPUT).verified
    assert Fault.LEDGER_MISMATCH in verify(other.store, OUTPUT, expected).faults


def test_a_store_that_is_away_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(TidemillError) as raised:
        verify(attach_store((tmp_path / "nowhere").as_uri()), OUTPUT)
    assert raised.value.reason is Reason.STORE_FAILED


def test_many_faults_are_counted_and_few_kept(tmp_path: Path) -> None:
    job = StoredJob(tmp_path, rows=400)
    for number in range(2, 41):
        start = 10 * (number - 1)
        job.rewrite_part(number, [replace(row, custom_id="x") for row in job.results[start : start + 10]])
    report = verify(job.store, OUTPUT)
    assert report.faults[Fault.RESULT_OF_ANOTHER_ROW] == 390
    assert len(report.findings) == 100
    assert report.as_json()["faults"]["RESULT_OF_ANOTHER_ROW"] == 390


@given(st.lists(st.integers(0, 40), max_size=200))
def test_repeats_are_exact_while_they_fit(values: list[int]) -> None:
    sample = DistinctSample(most=64)
    for value in values:
        sample.add(value.to_bytes(8, "little"))
    found = sample.repeats()
    most = max((values.count(value) for value in values), default=0)
    assert (found.extra, found.share) == (len(values) - len(set(values)), 1.0)
    assert found.largest == (most if most > 1 else 0)


def test_repeats_of_many_values_are_estimated_in_bounded_memory() -> None:
    sample = DistinctSample(most=1 << 10)
    for value in range(1 << 16):
        mixed = (value * 0x9E3779B97F4A7C15) & ((1 << 64) - 1)
        digest = (mixed ^ mixed >> 31).to_bytes(8, "little")
        sample.add(digest)
        sample.add(digest)
    found = sample.repeats()
    assert found.share <= 1 / 32
    assert found.extra / found.share == pytest.approx(1 << 16, rel=0.25)
    assert found.largest == 2

"""Whether rows get the same answers again: what a replay found, row by row."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from tidemill.v1 import job_pb2, provenance_pb2, row_pb2


class Verdict(StrEnum):
    """What became of one row."""

    SAME = "SAME"
    DIFFERENT = "DIFFERENT"
    NOT_COMPARABLE = "NOT_COMPARABLE"


@dataclass(frozen=True)
class RowVerdict:
    """One row: SAME, bit for bit; DIFFERENT although the engine promised the same; or NOT_COMPARABLE, and why.

    Attributes:
        row_index: index in the first job.
        reasons: why the answers cannot be compared, or what is wrong; empty for SAME.
        before, after: SHA-256 (hex) of the two answers; empty where there is none.
    """

    row_index: int
    verdict: Verdict
    reasons: tuple[str, ...]
    before: str
    after: str


@dataclass(frozen=True)
class Replay:
    """What a replay found. `job` is the new job's name."""

    job: str
    rows: tuple[RowVerdict, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by verdict."""
        found = Counter(row.verdict.value for row in self.rows)
        return {verdict.value: found[verdict.value] for verdict in Verdict}

    @property
    def reproduced(self) -> bool:
        """No row has another answer than it should have."""
        return not self.counts[Verdict.DIFFERENT.value]


def compare(before: provenance_pb2.RowProvenance, after: provenance_pb2.RowProvenance) -> RowVerdict:
    """The verdict on a row of the first job and the same row of its replay, both of which have outcomes."""
    reasons = (*_unanswered("first", before), *_unanswered("second", after))
    if reasons:
        verdict = Verdict.NOT_COMPARABLE
    elif before.output_digest == after.output_digest:
        verdict = Verdict.SAME
    elif reasons := _excuses(before, after):
        verdict = Verdict.NOT_COMPARABLE
    else:
        verdict, reasons = Verdict.DIFFERENT, ("the same engine promised the same answer, and gave another",)
    return RowVerdict(before.row_index, verdict, reasons, before.output_digest, after.output_digest)


def _unanswered(which: str, row: provenance_pb2.RowProvenance) -> tuple[str, ...]:
    if row.mismatches:
        return tuple(f"the {which} answer cannot be trusted: {text}" for text in row.mismatches)
    if row.result.status != row_pb2.ROW_STATUS_SUCCEEDED:
        return (f"the {which} time there was no answer: {row.result.error_code or 'no outcome'}",)
    return ()


_PARTS = {
    "model_digest": "the model's weights",
    "tokenizer_digest": "the tokenizer",
    "template_digest": "the chat template",
    "adapter_digest": "the adapter",
    "build": "the engine's build or device",
    "dtype": "the number format",
}


def _excuses(before: provenance_pb2.RowProvenance, after: provenance_pb2.RowProvenance) -> tuple[str, ...]:
    """Why another answer is no surprise."""
    found: list[str] = []
    if not before.input.repeatable:
        found.append("the answer is drawn at random: neither greedy nor seeded")
    for name, what in _PARTS.items():
        old, new = getattr(before.engine, name), getattr(after.engine, name)
        if old != new:
            found.append(f"{what} changed from {old or 'none'} to {new or 'none'}")
    if not found and before.engine.record != after.engine.record:
        found.append("the engine's settings or machine changed: compare its two records")
    promises = (before.engine.equal_answers, after.engine.equal_answers)
    if any(promise != job_pb2.EQUAL_ANSWERS_PROMISED for promise in promises):
        found.append("the engine does not promise equal answers: rounding may depend on the other rows of a batch")
    return tuple(found)

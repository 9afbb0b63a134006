"""What a verification found: faults, and figures that a person should look at."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

MOST_FINDINGS = 100
"""Findings kept in full; more of them are only counted."""


class Fault(StrEnum):
    """Kinds of faults; stable names for machines."""

    MANIFEST_MISSING = "MANIFEST_MISSING"
    MANIFEST_UNREADABLE = "MANIFEST_UNREADABLE"
    SCHEMA_UNKNOWN = "SCHEMA_UNKNOWN"
    PARENT_MISMATCH = "PARENT_MISMATCH"
    SPEC_CHANGED = "SPEC_CHANGED"
    VERSION_MISMATCH = "VERSION_MISMATCH"
    MERKLE_ROOT_MISMATCH = "MERKLE_ROOT_MISMATCH"
    SEGMENT_MISSING = "SEGMENT_MISSING"
    SEGMENT_CHANGED = "SEGMENT_CHANGED"
    SEGMENT_UNREADABLE = "SEGMENT_UNREADABLE"
    SEGMENT_ORDER = "SEGMENT_ORDER"
    SEGMENT_ROWS = "SEGMENT_ROWS"
    SEGMENT_TWICE = "SEGMENT_TWICE"
    ROW_CHANGED = "ROW_CHANGED"
    ROW_OUT_OF_PLACE = "ROW_OUT_OF_PLACE"
    CUSTOM_ID_TWICE = "CUSTOM_ID_TWICE"
    RESULT_MISSING = "RESULT_MISSING"
    RESULT_TWICE = "RESULT_TWICE"
    RESULT_INVENTED = "RESULT_INVENTED"
    RESULT_OF_ANOTHER_ROW = "RESULT_OF_ANOTHER_ROW"
    OUTPUT_CHANGED = "OUTPUT_CHANGED"
    ANSWER_WITHOUT_MODEL = "ANSWER_WITHOUT_MODEL"
    ERROR_WITH_ANSWER = "ERROR_WITH_ANSWER"
    STATUS_UNKNOWN = "STATUS_UNKNOWN"
    COUNTS_MISMATCH = "COUNTS_MISMATCH"
    USAGE_MISMATCH = "USAGE_MISMATCH"
    ENGINES_MISMATCH = "ENGINES_MISMATCH"
    ENGINE_RECORD_MISSING = "ENGINE_RECORD_MISSING"
    ENGINE_RECORD_CHANGED = "ENGINE_RECORD_CHANGED"
    LEDGER_MISMATCH = "LEDGER_MISMATCH"


@dataclass(frozen=True)
class Finding:
    """One fault: its kind, what is wrong in words, and the object-store key it was found in."""

    fault: Fault
    message: str
    key: str = ""


@dataclass
class Report:
    """Outcome of one verification.

    Attributes:
        manifest: key of the output manifest.
        job, data_version: as the manifest names them; empty when it could not be read.
        rows: rows of the input as the manifest counts them.
        succeeded, failed, cancelled, expired: rows by outcome, counted anew.
        empty_answers: answered rows whose text is empty or blank.
        echoes: answered rows whose text is their prompt again.
        duplicated_answers: answered rows whose answer another row of the job has as well, less one each group.
        largest_group: rows that share the commonest answer; 0 or at least 2.
        sampled: share of all possible answers that the last two were counted over, 1.0 up to two million answers.
            `duplicated_answers` is scaled up by it.
        faults: number of findings by kind.
        findings: the first of them, at most `MOST_FINDINGS`.
    """

    manifest: str
    job: str = ""
    data_version: str = ""
    rows: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    empty_answers: int = 0
    echoes: int = 0
    duplicated_answers: int = 0
    largest_group: int = 0
    sampled: float = 1.0
    seconds: float = 0.0
    faults: Counter[Fault] = field(default_factory=Counter[Fault])
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def verified(self) -> bool:
        """Nothing is wrong. Empty, echoed and duplicated answers are a model's business and no faults."""
        return not self.faults

    def add(self, fault: Fault, message: str, key: str = "") -> None:
        """Note a fault."""
        self.faults[fault] += 1
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(fault, message, key))

    def as_json(self) -> dict[str, Any]:
        """For `--json`: the attributes above and `verified`."""
        fields = asdict(self)
        fields["faults"] = {fault.value: count for fault, count in sorted(self.faults.items())}
        return {"verified": self.verified, **fields}

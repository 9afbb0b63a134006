"""Verifies one job from its output manifest."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from tidemill import digests, engine_record
from tidemill.errors import Reason, TidemillError
from tidemill.manifest import InputManifest, OutputManifest
from tidemill.merkle import Frontier
from tidemill.store import ObjectStore
from tidemill.verify.inputs import InputReader
from tidemill.verify.report import Fault, Report
from tidemill.verify.results import ChunkChecker, Sums, chunks_of

M = TypeVar("M", InputManifest, OutputManifest)


@dataclass(frozen=True)
class Expected:
    """What the ledger says of the job; versions are hex."""

    job: str
    input_data_version: str
    output_data_version: str
    rows: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int


def verify(store: ObjectStore, key: str, expected: Expected | None = None) -> Report:
    """Check the job whose output manifest lies under `key`, and against the ledger where `expected` is given.

    Memory is that of one chunk. Raises STORE_FAILED when the store is away; all that is wrong is in the report.
    """
    started = time.monotonic()
    report = Report(key)
    if (output := _load(store, key, OutputManifest, report)) is not None:
        report.job, report.data_version, report.rows = output.job, output.data_version, output.row_count
        _check_job(store, output, report)
        if expected is not None:
            _check_ledger(output, expected, report)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _load(store: ObjectStore, key: str, kind: type[M], report: Report) -> M | None:
    try:
        data = store.get(key)
    except TidemillError as exc:
        if exc.reason is not Reason.DATA_CORRUPT:
            raise
        report.add(Fault.MANIFEST_MISSING, exc.message, key)
        return None
    try:
        return kind.model_validate_json(data)
    except ValidationError as exc:
        places = {".".join(str(part) for part in error["loc"]) for error in exc.errors()}
        if "schema_version" in places:
            text = f"{key} has a schema version that this build does not know; it reads {digests.SCHEMA_VERSION}"
            report.add(Fault.SCHEMA_UNKNOWN, text, key)
        else:
            report.add(Fault.MANIFEST_UNREADABLE, f"{key} is not a manifest: see {', '.join(sorted(places))}", key)
        return None


def _check_job(store: ObjectStore, output: OutputManifest, report: Report) -> None:
    document = _load(store, output.parent_manifest, InputManifest, report)
    if document is None:
        return
    _check_parent(output, document, report)
    sums, chunks = Sums(), chunks_of(output, report)
    reader = InputReader(store, document.segments, document.row_count, report)
    checker = ChunkChecker(store, sums, report)
    asked_tree, answer_tree, whole, expected = Frontier(), Frontier(), True, 0
    for chunk in chunks:
        if chunk.start != expected:
            whole = False
            text = f"results of rows {expected} to {chunk.start} are missing, or chunks overlap there"
            report.add(Fault.RESULT_MISSING if chunk.start > expected else Fault.RESULT_TWICE, text)
            asked_tree = _extended(asked_tree, (row and row.digest for row in reader.take(chunk.start - expected)))
        asked = reader.take(chunk.rows)
        leaves = checker.leaves(chunk, asked)
        if len(asked) < chunk.rows:
            text = f"chunk {chunk.start} has {chunk.rows} rows, of which the input has {len(asked)}"
            report.add(Fault.RESULT_INVENTED, text)
        asked_tree = _extended(asked_tree, (row and row.digest for row in asked))
        answer_tree = _extended(answer_tree, leaves)
        expected = chunk.start + chunk.rows
    if rest := reader.take(max(0, document.row_count - expected) + 1):
        report.add(Fault.RESULT_MISSING, f"rows from row {expected} on have no result")
        asked_tree = _extended(asked_tree, (row and row.digest for row in rest))
    reader.close()
    if asked_tree is not None and asked_tree.root().hex() != document.merkle_root:
        report.add(Fault.MERKLE_ROOT_MISMATCH, "the input rows are not those of the input's Merkle root")
    if whole and answer_tree is not None and answer_tree.root().hex() != output.merkle_root:
        report.add(Fault.MERKLE_ROOT_MISMATCH, "the results are not those of the output's Merkle root", report.manifest)
    _note(sums, report)
    _check_sums(store, output, sums, report)


def _extended(tree: Frontier | None, leaves: "Iterator[bytes | None] | list[bytes | None]") -> Frontier | None:
    """The tree with these leaves; None from the first missing one on, since nothing can be said then."""
    if tree is None:
        return None
    known = list(leaves)
    return None if None in known else tree.extend(leaf for leaf in known if leaf is not None)


def _check_parent(output: OutputManifest, document: InputManifest, report: Report) -> None:
    key = output.parent_manifest
    version = digests.data_version(digests.INPUT_SPEC, document.row_count, bytes.fromhex(document.merkle_root)).hex()
    if version != document.data_version:
        report.add(Fault.VERSION_MISMATCH, "the input's data version does not follow from its root and count", key)
    if (output.parent, output.job, output.row_count) != (document.data_version, document.job, document.row_count):
        report.add(Fault.PARENT_MISMATCH, "the output was not made from this input: version, job or rows differ", key)
    if digests.spec_digest(output.spec.encode()).hex() != output.spec_digest:
        report.add(Fault.SPEC_CHANGED, "the specification is not what its digest says", report.manifest)
    spec, root = bytes.fromhex(output.spec_digest), bytes.fromhex(output.merkle_root)
    if digests.data_version(spec, output.row_count, root).hex() != output.data_version:
        text = "the output's data version does not follow from its specification, root and count"
        report.add(Fault.VERSION_MISMATCH, text, report.manifest)


def _note(sums: Sums, report: Report) -> None:
    for outcome in ("succeeded", "failed", "cancelled", "expired"):
        setattr(report, outcome, sums.outcomes[outcome])
    repeats = sums.answers.repeats()
    report.empty_answers, report.echoes, report.sampled = sums.empty, sums.echoes, repeats.share
    report.duplicated_answers = round(repeats.extra / repeats.share)
    report.largest_group = repeats.largest


def _check_sums(store: ObjectStore, output: OutputManifest, sums: Sums, report: Report) -> None:
    counted = {name: sums.outcomes[name] for name in output.counts.model_dump()}
    if counted != output.counts.model_dump():
        text = f"the manifest counts {output.counts.model_dump()}, its results are {counted}"
        report.add(Fault.COUNTS_MISMATCH, text, report.manifest)
    if output.usage is not None and output.usage.model_dump() != dict(sums.usage):
        text = f"the manifest counts {output.usage.model_dump()}, its results {dict(sums.usage)}"
        report.add(Fault.USAGE_MISMATCH, text, report.manifest)
    named = {(item.model_digest, item.engine_build, item.record): item.rows for item in output.engines}
    if named != dict(sums.engines):
        report.add(
            Fault.ENGINES_MISMATCH, "the engines that the manifest names are not those of its rows", report.manifest
        )
    for record in sorted({record for _, _, record in sums.engines if record}):
        _check_record(store, record, report)


def _check_record(store: ObjectStore, record: str, report: Report) -> None:
    key = engine_record.store_key(record)
    try:
        engine_record.get(store, bytes.fromhex(record))
    except ValidationError:
        report.add(Fault.ENGINE_RECORD_CHANGED, f"{key} is not an engine record of a version known here", key)
    except TidemillError as exc:
        if exc.reason is not Reason.DATA_CORRUPT:
            raise
        fault = Fault.ENGINE_RECORD_CHANGED if store.exists(key) else Fault.ENGINE_RECORD_MISSING
        report.add(fault, exc.message, key)


def _check_ledger(output: OutputManifest, expected: Expected, report: Report) -> None:
    counts = output.counts
    found = Expected(
        output.job,
        output.parent,
        output.data_version,
        output.row_count,
        counts.succeeded,
        counts.failed,
        counts.cancelled,
        counts.expired,
    )
    if found != expected:
        text = f"the ledger says {expected}, the manifest {found}"
        report.add(Fault.LEDGER_MISMATCH, text, report.manifest)

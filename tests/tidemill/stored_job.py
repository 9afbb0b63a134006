"""A finished job in an object store, whole, with ways to damage it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.stores import folder_store
from tidemill import digests, engine_record, segments
from tidemill.encoding import encode_request, encode_spec
from tidemill.engine_record import EngineRecord
from tidemill.manifest import EngineEntry, InputManifest, OutcomeCounts, OutputManifest, PartEntry, SegmentEntry, Usage
from tidemill.manifest import encode as encode_manifest
from tidemill.merkle import Frontier
from tidemill.outputs import Output
from tidemill.segments import InputRow, ResultRow
from tidemill.v1 import row_pb2

JOB = "tenants/acme/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"
FOLDER = "jobs/acme/01ARZ3NDEKTSV4RRFFQ69G5FAV"
INPUT, OUTPUT = f"{FOLDER}/input/manifest-0.json", f"{FOLDER}/output/manifest.json"
ROWS, CHUNK, FAILED = 25, 10, 7
MODEL, BUILD = "d" * 64, "vllm 0 (cpu)"

RECORD = EngineRecord(
    engine=BUILD,
    mode="shared",
    model="tiny",
    model_digest=MODEL,
    tokenizer_digest="a" * 64,
    config_digest="b" * 64,
    template_digest="",
    arguments={},
    environment={},
    device="cpu",
    device_name="a processor",
    dtype="float32",
    seed=0,
    tensor_parallel_size=1,
    batch_invariant=False,
    equal_answers="promised",
    versions={},
)


def input_row(index: int, text: str) -> InputRow:
    """A prompt as a gateway stores it."""
    request = encode_request(row_pb2.Row(custom_id=f"r{index}", prompt=text))
    return InputRow(index, f"r{index}", "prompt", request, digests.row_digest(f"r{index}", request))


def answered(row: InputRow, text: str, record: str) -> ResultRow:
    """The row with an answer."""
    return ResultRow(
        row_index=row.row_index,
        custom_id=row.custom_id,
        status=row_pb2.ROW_STATUS_SUCCEEDED,
        text=text,
        finish_reason="stop",
        prompt_tokens=5,
        output_tokens=2,
        cached_tokens=1,
        queue_seconds=None,
        prefill_seconds=None,
        decode_seconds=None,
        attempt=1,
        error_code="",
        error_message="",
        request_digest=row.digest,
        output_digest=Output(text).digest,
        chunk_start=row.row_index // CHUNK * CHUNK,
        model_digest=MODEL,
        engine_build=BUILD,
        engine_record=record,
    )


def failed(row: InputRow, record: str) -> ResultRow:
    """The row with an error."""
    return replace(
        answered(row, "", record),
        status=row_pb2.ROW_STATUS_FAILED,
        text=None,
        finish_reason="",
        error_code="ENGINE_REFUSED",
        output_digest=digests.error_digest("ENGINE_REFUSED"),
        model_digest="",
        engine_build="",
        engine_record="",
    )


class StoredJob:
    """25 rows in two segments, in chunks of 10, the first chunk in two parts; row 7 failed."""

    def __init__(self, folder: Path, rows: int = ROWS, text: Callable[[int], str] = "answer {}".format) -> None:
        self.store = folder_store(folder)
        self.record = engine_record.put(self.store, RECORD).hex()
        self.inputs = [input_row(index, f"text {index}") for index in range(rows)]
        self.results = [
            failed(row, self.record) if row.row_index == FAILED else answered(row, text(row.row_index), self.record)
            for row in self.inputs
        ]
        self._write_manifests(self._segments(), self._parts())

    def _segments(self) -> list[SegmentEntry]:
        half = len(self.inputs) // 2
        return [self._segment(0, half), self._segment(half, len(self.inputs))]

    def _segment(self, start: int, end: int) -> SegmentEntry:
        table = segments.input_table(self.inputs[start:end])
        file = segments.write_segment(self.store, f"{FOLDER}/input/{start:012d}-1.parquet", table)
        return SegmentEntry(key=file.key, sha256=file.sha256.hex(), start=start, rows=end - start)

    def _parts(self) -> list[PartEntry]:
        parts = [self._part(0, self.results[5:CHUNK], 0), self._part(0, self.results[:5], 1)]
        for start in range(CHUNK, len(self.results), CHUNK):
            parts.append(self._part(start, self.results[start : start + CHUNK], 0))
        return parts

    def _part(self, chunk: int, rows: Sequence[ResultRow], number: int) -> PartEntry:
        file = segments.write_segment(
            self.store, f"{FOLDER}/output/{chunk:012d}-3-{number}.parquet", segments.result_table(rows)
        )
        return PartEntry(
            key=file.key,
            sha256=file.sha256.hex(),
            chunk_start=chunk,
            chunk_rows=min(CHUNK, len(self.inputs) - chunk),
            rows=len(rows),
            fence=3,
            part_number=number,
        )

    def _write_manifests(self, inputs: list[SegmentEntry], parts: list[PartEntry]) -> None:
        count = len(self.inputs)
        root = Frontier().extend(row.digest for row in self.inputs).root()
        version = digests.data_version(digests.INPUT_SPEC, count, root).hex()
        document = InputManifest(
            job=JOB, row_count=count, merkle_root=root.hex(), data_version=version, segments=tuple(inputs)
        )
        self.store.put(INPUT, encode_manifest(document))
        leaves = [
            digests.output_leaf(row.row_index, row.custom_id, row.status, row.output_digest) for row in self.results
        ]
        root, spec = Frontier().extend(leaves).root(), encode_spec(MODEL, "", row_pb2.SamplingParams())
        answers = sum(row.status == row_pb2.ROW_STATUS_SUCCEEDED for row in self.results)
        output = OutputManifest(
            job=JOB,
            dataset="set",
            model="tiny",
            state="SUCCEEDED",
            row_count=count,
            counts=OutcomeCounts(succeeded=answers, failed=count - answers, cancelled=0, expired=0),
            usage=Usage(prompt_tokens=5 * count, output_tokens=2 * count, cached_tokens=count),
            merkle_root=root.hex(),
            spec=spec.decode(),
            spec_digest=digests.spec_digest(spec).hex(),
            data_version=digests.data_version(digests.spec_digest(spec), count, root).hex(),
            parent=version,
            parent_manifest=INPUT,
            engines=(EngineEntry(model_digest=MODEL, engine_build=BUILD, rows=answers, record=self.record),),
            parts=tuple(parts),
        )
        self.store.put(OUTPUT, encode_manifest(output))

    def manifest(self, key: str) -> dict[str, Any]:
        """A manifest as it lies there."""
        return json.loads(self.store.get(key))

    def put_manifest(self, key: str, document: dict[str, Any]) -> None:
        """Write a manifest as it is given."""
        self.store.put(key, json.dumps(document).encode())

    def edit(self, key: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a manifest."""
        document = self.manifest(key)
        change(document)
        self.put_manifest(key, document)

    def rewrite_part(self, number: int, rows: Sequence[ResultRow], *, drop: Sequence[str] = ()) -> None:
        """Write other rows into a part and put its new digest into the manifest; counts and roots stay."""
        entry = self.manifest(OUTPUT)["parts"][number]
        table = segments.result_table(rows).drop_columns(list(drop))
        file = segments.write_segment(self.store, entry["key"], table)
        self.edit(OUTPUT, lambda found: found["parts"][number].update(sha256=file.sha256.hex(), rows=len(rows)))

    def rewrite_segment(self, number: int, rows: Sequence[InputRow]) -> None:
        """The same for an input segment, whose count of rows stays."""
        entry = self.manifest(INPUT)["segments"][number]
        file = segments.write_segment(self.store, entry["key"], segments.input_table(rows))
        self.edit(INPUT, lambda found: found["segments"][number].update(sha256=file.sha256.hex()))

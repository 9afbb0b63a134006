"""`GetRowProvenance`: the chain behind one row's answer, read from what is stored and checked on the way."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from services.gateway.auth import Principal
from services.gateway.result_fields import ALL_FIELDS
from services.gateway.scheduler import Scheduler
from tidemill import digests, engine_record, rowset, segments, telemetry
from tidemill.encoding import MODEL_TASKS, decode_request, merge_sampling
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.sampling_limits import GREEDY_BELOW
from tidemill.segments import InputRow, ResultRow
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, model_service_pb2, provenance_pb2, row_pb2

pb = provenance_pb2

_PROMISES = {
    "promised": job_pb2.EQUAL_ANSWERS_PROMISED,
    "not promised": job_pb2.EQUAL_ANSWERS_NOT_PROMISED,
}


@dataclass
class _Found:
    """What was read, and what does not fit."""

    row: InputRow
    result: ResultRow | None = None
    shown: row_pb2.RowResult | None = None
    record: engine_record.EngineRecord | None = None
    mismatches: list[str] = field(default_factory=list[str])


class Provenance:
    """Looks rows up."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore) -> None:
        self._scheduler = scheduler
        self._store = store

    async def get(self, principal: Principal, request: pb.GetRowProvenanceRequest) -> pb.RowProvenance:
        """Where the answer of a row comes from; OFFSET_OUT_OF_RANGE when the job has no such row."""
        name = str(principal.job(request.name))
        record = await self._scheduler.get_job(name)
        _check_row(request.row_index, record)
        segment = next(
            item
            for item in await self._scheduler.list_segments(name)
            if item.start <= request.row_index < item.start + item.count
        )
        part = await self._part(name, request.row_index)
        found = await asyncio.to_thread(self._read, request.row_index, segment, part)
        return self._answer(record, request.row_index, segment, part, found)

    async def _part(self, job: str, row: int) -> records_pb2.PartRef | None:
        """The part with the row's result, if there is one."""
        after, more = 0, True
        while more:
            page = await self._scheduler.list_parts(job, after)
            after, more = after + len(page.parts), page.more
            for part in page.parts:
                place = row - part.chunk_start
                if 0 <= place < part.chunk_rows and rowset.from_bytes(part.row_bitmap) >> place & 1:
                    return part
        return None

    def _read(self, index: int, segment: records_pb2.SegmentRef, part: records_pb2.PartRef | None) -> _Found:
        table = segments.read_rows(self._store, segment.key, [index - segment.start])
        found = _Found(next(segments.input_rows(table)))
        self._check_file(found, segment.key, segment.sha256)
        if digests.row_digest(found.row.custom_id, found.row.request) != found.row.digest:
            found.mismatches.append("the stored request is not what its digest says")
        if part is not None:
            self._read_result(found, index, part)
        return found

    def _read_result(self, found: _Found, index: int, part: records_pb2.PartRef) -> None:
        self._check_file(found, part.key, part.sha256)
        table: Any = None
        for batch in segments.read_batches(self._store, part.key):
            table = batch.filter(batch.column("row_index").to_numpy() == index)
            if table.num_rows:
                break
        if table is None or not table.num_rows:
            found.mismatches.append(f"{part.key} has no result of the row, although the ledger says so")
            return
        found.result = next(segments.result_rows(table))
        found.shown = next(ALL_FIELDS.results(segments.with_later_columns(table)))
        _check_result(found, found.result)
        if found.result.engine_record:
            self._read_record(found, found.result.engine_record)

    def _read_record(self, found: _Found, digest: str) -> None:
        try:
            found.record = engine_record.get(self._store, bytes.fromhex(digest))
        except TidemillError as exc:
            if exc.reason is not Reason.DATA_CORRUPT:
                raise
            found.mismatches.append(f"the engine record: {exc.message}")

    def _check_file(self, found: _Found, key: str, sha256: bytes) -> None:
        try:
            self._store.verify(key, sha256)
        except TidemillError as exc:
            if exc.reason is not Reason.DATA_CORRUPT:
                raise
            found.mismatches.append(exc.message)

    def _answer(
        self,
        record: records_pb2.JobRecord,
        index: int,
        segment: records_pb2.SegmentRef,
        part: records_pb2.PartRef | None,
        found: _Found,
    ) -> pb.RowProvenance:
        answer = pb.RowProvenance(
            job=record.spec.name,
            row_index=index,
            input=pb.RowInput(
                custom_id=found.row.custom_id,
                digest=found.row.digest.hex(),
                task=found.row.task,
                repeatable=_is_repeatable(record.spec.sampling, found.row),
                segment=self._file(segment.key, segment.sha256),
                input_data_version=record.input_data_version.hex(),
            ),
            result=found.shown,
            output_data_version=record.output_data_version.hex(),
            trace_id=telemetry.trace_id_of(record.spec.traceparent),
            mismatches=found.mismatches,
        )
        if part is not None and found.result is not None:
            answer.output_digest = found.result.output_digest.hex()
            answer.commit.CopyFrom(self._commit(part, found.result))
            if found.result.model_digest:
                answer.engine.CopyFrom(_engine(record.spec.model, found.result, found.record))
        return answer

    def _commit(self, part: records_pb2.PartRef, result: ResultRow) -> pb.RowCommit:
        return pb.RowCommit(
            attempt=result.attempt,
            chunk_start=result.chunk_start,
            fence=part.fence,
            part_number=part.part_number,
            part=self._file(part.key, part.sha256),
        )

    def _file(self, key: str, sha256: bytes) -> pb.StoredFile:
        return pb.StoredFile(key=key, uri=self._store.uri(key), sha256=sha256.hex())


def _check_row(index: int, record: records_pb2.JobRecord) -> None:
    if not 0 <= index < record.next_offset:
        description = f"row {index} does not exist: the job has {record.next_offset} rows, the first is row 0"
        raise TidemillError(
            Reason.OFFSET_OUT_OF_RANGE,
            description,
            metadata={"job": record.spec.name, "row_index": index, "end": record.next_offset},
            violations=[FieldViolation("row_index", description)],
        )


def _is_repeatable(defaults: row_pb2.SamplingParams, row: InputRow) -> bool:
    if MODEL_TASKS.get(row.task) != model_service_pb2.TASK_GENERATE:
        return True
    values = merge_sampling(defaults, decode_request(row.request).sampling)
    temperature = values.get("temperature")
    return "seed" in values or (isinstance(temperature, float) and temperature < GREEDY_BELOW)


def _check_result(found: _Found, result: ResultRow) -> None:
    succeeded = result.status == row_pb2.ROW_STATUS_SUCCEEDED
    if result.output_digest != (result.output.digest if succeeded else digests.error_digest(result.error_code)):
        found.mismatches.append("the stored output is not what its digest says")
    if (result.custom_id, result.request_digest) != (found.row.custom_id, found.row.digest):
        found.mismatches.append("the stored output answers another request")


def _engine(model: str, result: ResultRow, record: engine_record.EngineRecord | None) -> pb.RowEngine:
    engine = pb.RowEngine(
        model=model, model_digest=result.model_digest, build=result.engine_build, record=result.engine_record
    )
    if record is not None:
        engine.tokenizer_digest, engine.template_digest = record.tokenizer_digest, record.template_digest
        engine.adapter_digest, engine.dtype, engine.mode = record.adapter_digest, record.dtype, record.mode
        engine.equal_answers = _PROMISES[record.equal_answers]
    return engine

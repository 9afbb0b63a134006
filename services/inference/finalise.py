"""The closing task of a job: give up what is left, check everything, write the output manifest, finish the job."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from services.inference.answers import Origin, error_row
from services.inference.held import HeldLease
from services.inference.link import LeaseVoidError, SchedulerLink
from services.inference.parts import PartWriter, tally
from services.inference.proof import ChunkParts, chunks_of, proved_tables
from services.inference.store_link import StoreLink
from tidemill import digests, manifest, rowset, segments, telemetry
from tidemill.encoding import encode_spec
from tidemill.errors import Reason, RowCode, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.merkle import Frontier
from tidemill.v1 import job_pb2, row_pb2

__all__ = ["FinaliseTask"]

log = telemetry.logger(__name__)
tracer = telemetry.tracer(__name__)

_ROWS_A_PART = 4096
_GIVEN_UP: dict[int, tuple[int, RowCode]] = {
    job_pb2.JOB_STATE_CANCELLED: (row_pb2.ROW_STATUS_CANCELLED, RowCode.JOB_CANCELLED),
    job_pb2.JOB_STATE_EXPIRED: (row_pb2.ROW_STATUS_EXPIRED, RowCode.JOB_EXPIRED),
    job_pb2.JOB_STATE_FAILED: (row_pb2.ROW_STATUS_FAILED, RowCode.JOB_FAILED),
}


@dataclass
class _Sums:
    """What goes by while the results are read in row order."""

    frontier: Frontier = field(default_factory=Frontier)
    input_frontier: Frontier = field(default_factory=Frontier)
    tally: records_pb2.RowTally = field(default_factory=records_pb2.RowTally)
    engines: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])


@dataclass(frozen=True)
class FinaliseTask:
    """What closing a job needs. `template_digest` is that of the model's chat template, hex."""

    held: HeldLease
    store: StoreLink
    link: SchedulerLink
    template_digest: str

    async def run(self) -> None:
        """Close the job.

        Raises:
            LeaseVoidError: the lease ended first.
            TidemillError: DATA_CORRUPT when results are missing, doubled or changed; what the scheduler refuses.
        """
        with tracer.start_as_current_span("inference.finalise") as span:
            segment_list = await self.link.segments(self.held.job, self.held.void)
            await self._give_up(segment_list)
            parts = chunks_of(await self.link.parts(self.held.job, self.held.void))
            sums = await self.store.call(
                lambda: self._read_back(parts, segment_list), self.held.void, silent_seconds=None
            )
            key, version = await self.store.call(lambda: self._write_manifest(parts, sums), self.held.void)
            span.set_attributes({"tidemill.rows": self.held.lease.row_count, "tidemill.data_version": version.hex()})
            request = pb.FinishJobRequest(
                lease=self.held.key, output_data_version=version, output_manifest_key=key, tally=sums.tally
            )
            await self.link.finish(request, self.held.void)
        log.info("job finished", job=self.held.job, state=self._state, rows=self.held.lease.row_count)

    @property
    def _state(self) -> str:
        return job_pb2.JobState.Name(self.held.lease.outcome).removeprefix("JOB_STATE_")

    async def _give_up(self, segment_list: Sequence[records_pb2.SegmentRef]) -> None:
        next_part = 0
        for remainder in self.held.lease.remainders:
            writer = PartWriter(
                self.held,
                self.store,
                self.link,
                chunk_start=remainder.chunk_start,
                chunk_rows=remainder.chunk_rows,
                done=rowset.from_bytes(remainder.done_bitmap),
                first_part=next_part,
            )
            for start in range(remainder.chunk_start, remainder.chunk_start + remainder.chunk_rows, _ROWS_A_PART):
                end = min(start + _ROWS_A_PART, remainder.chunk_start + remainder.chunk_rows)
                table = await self.store.call(
                    partial(self._given_up, segment_list, start, end, remainder.chunk_start), self.held.void
                )
                await writer.commit([table], "", "")
            next_part = writer.next_part

    def _given_up(self, segment_list: Sequence[records_pb2.SegmentRef], start: int, end: int, chunk: int) -> Any:
        """Rows `[start, end)` as results that say why they have no answer."""
        lease = self.held.lease
        status, code = _GIVEN_UP[lease.outcome]
        reason = lease.error_reason or code.value
        message = lease.error_message or f"the job was {self._state.lower()} before this row was answered"
        origin = Origin(lease.attempt, chunk, "", "")
        rows: list[segments.ResultRow] = []
        for segment in segment_list:
            if segment.start < end and start < segment.start + segment.count:
                self.store.checked.verify(segment.key, segment.sha256)
                positions = range(max(0, start - segment.start), min(end - segment.start, segment.count))
                inside = segments.read_rows(self.store.store, segment.key, positions)
                rows += [error_row(row, status, reason, message, origin) for row in segments.input_rows(inside)]
        return segments.result_table(rows)

    def _read_back(self, parts: Sequence[ChunkParts], segment_list: Sequence[records_pb2.SegmentRef]) -> _Sums:
        sums = _Sums()
        for table, inputs in proved_tables(self.store.store, parts, segment_list, self.held.lease.row_count):
            if self.held.ended:
                raise LeaseVoidError("the lease ended")
            sums.frontier = sums.frontier.extend(_leaves(table))
            sums.input_frontier = sums.input_frontier.extend(inputs)
            sums.tally = _added(sums.tally, tally(table))
            sums.engines.update(_engines(table))
        self._check_input(sums)
        return sums

    def _check_input(self, sums: _Sums) -> None:
        lease = self.held.lease
        version = digests.data_version(digests.INPUT_SPEC, lease.row_count, sums.input_frontier.root())
        if lease.input_data_version and version != lease.input_data_version:
            raise TidemillError(
                Reason.DATA_CORRUPT,
                f"the input of {self.held.job} is not what was sealed: its data version is {version.hex()}",
                metadata={"job": self.held.job},
            )

    def _write_manifest(self, parts: Sequence[ChunkParts], sums: _Sums) -> tuple[str, bytes]:
        lease = self.held.lease
        models = ",".join(sorted({model for model, _, _ in sums.engines}))
        spec = encode_spec(models, self.template_digest, lease.spec.sampling)
        root = sums.frontier.root()
        version = digests.data_version(digests.spec_digest(spec), lease.row_count, root)
        counts = sums.tally
        document = manifest.OutputManifest(
            job=self.held.job,
            dataset=lease.dataset,
            model=lease.spec.model,
            state=self._state,
            row_count=lease.row_count,
            counts=manifest.OutcomeCounts(
                succeeded=counts.succeeded, failed=counts.failed, cancelled=counts.cancelled, expired=counts.expired
            ),
            usage=manifest.Usage(
                prompt_tokens=counts.prompt_tokens,
                output_tokens=counts.output_tokens,
                cached_tokens=counts.cached_tokens,
            ),
            merkle_root=root.hex(),
            spec=spec.decode(),
            spec_digest=digests.spec_digest(spec).hex(),
            data_version=version.hex(),
            parent=lease.input_data_version.hex(),
            parent_manifest=lease.input_manifest_key,
            engines=tuple(
                manifest.EngineEntry(model_digest=model, engine_build=build, rows=rows, record=record)
                for (model, build, record), rows in sorted(sums.engines.items())
            ),
            parts=tuple(_entry(part) for chunk in parts for part in chunk.parts),
        )
        key = f"{self.held.folder}/manifest.json"
        self.store.store.put(key, manifest.encode(document))
        return key, version


def _leaves(table: Any) -> Iterator[bytes]:
    columns = (table.column(name).to_pylist() for name in ("row_index", "custom_id", "status", "output_digest"))
    return (digests.output_leaf(*row) for row in zip(*columns, strict=True))


def _engines(table: Any) -> Iterator[tuple[str, str, str]]:
    """What answered each row that weights answered."""
    columns = (table.column(name).to_pylist() for name in ("model_digest", "engine_build", "engine_record"))
    return (found for found in zip(*columns, strict=True) if found[0])


def _added(left: records_pb2.RowTally, right: records_pb2.RowTally) -> records_pb2.RowTally:
    names = [item.name for item in records_pb2.RowTally.DESCRIPTOR.fields]
    return records_pb2.RowTally(**{name: getattr(left, name) + getattr(right, name) for name in names})


def _entry(part: records_pb2.PartRef) -> manifest.PartEntry:
    return manifest.PartEntry(
        key=part.key,
        sha256=part.sha256.hex(),
        chunk_start=part.chunk_start,
        chunk_rows=part.chunk_rows,
        rows=part.row_count,
        fence=part.fence,
        part_number=part.part_number,
    )
